import { UnsupportedError } from "./errors"

/**
 * The day on which every prompt is written. Some templates write today's date into the system message; a run that is
 * resumed tomorrow must still see the same prompts, so the date stands still, at the one that Llama's templates have as
 * their own fallback: Friday, 26 July 2024, midnight.
 */
const codes: Record<string, string> = {
  ...{ Y: "2024", C: "20", y: "24", G: "2024", g: "24", m: "07", d: "26", e: "26", j: "208" },
  ...{ b: "Jul", h: "Jul", B: "July", a: "Fri", A: "Friday", u: "5", w: "5", U: "29", W: "30", V: "30" },
  ...{ H: "00", k: " 0", I: "12", l: "12", M: "00", S: "00", f: "000000", p: "AM", P: "am", z: "", Z: "" },
  ...{ D: "07/26/24", x: "07/26/24", F: "2024-07-26", T: "00:00:00", X: "00:00:00", R: "00:00", r: "12:00:00 AM" },
  ...{ c: "Fri Jul 26 00:00:00 2024", n: "\n", t: "\t", "%": "%" },
}

/** `datetime.strftime` of that day, in the C locale, with the flags `-`, `_`, `0`, `^` of its library. */
export function strftimeNow(format: string): string {
  return format.replace(/%([-_0^]?)(.?)/gs, (whole, flag: string, code: string) => {
    const text = codes[code]
    if (text === undefined || !code) throw new UnsupportedError(`the date format ${whole || "%"}`)
    if (flag === "^") return text.toUpperCase()
    if (!flag) return text
    if (!/^[ \d]\d*$/.test(text)) throw new UnsupportedError(`the date format ${whole}`)
    const digits = text.replace(/^[ 0]+(?=\d)/, "")
    return flag === "-" ? digits : digits.padStart(text.length, flag === "_" ? " " : "0")
  })
}
