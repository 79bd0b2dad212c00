import { currentDevice, type Device } from "../device/device"

/**
 * An operation whose form depends on the device: `choose` picks it when it is first called on one. This is the one
 * place where operations learn what they run on.
 */
export function operation<Form extends (...args: never[]) => unknown>(choose: (device: Device) => Form): Form {
  let chosenFor: Device | undefined
  let form: Form
  const call = (...args: never[]): unknown => {
    const device = currentDevice()
    if (device !== chosenFor) {
      form = choose(device)
      chosenFor = device
    }
    return form(...args)
  }
  return call as Form
}
