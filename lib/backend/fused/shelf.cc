#include <unistd.h>
#include "op.h"

// Vectors in the slots of a file that processes share, without a copy on the way.

/** Reads or writes all of `bytes`, from the slot's begin on. */
template <typename Move, typename Byte>
static bool moved(Move move, int fd, int64_t slot, Byte* data, int64_t bytes) {
  for (int64_t done = 0; done < bytes;) {
    const ssize_t some = move(fd, data + done, bytes - done, slot * bytes + done);
    if (some <= 0) return false;
    done += some;
  }
  return true;
}

// x into a slot of its size; place: file descriptor, slot -> 1 if there was room, else 0
static void put(Call& call) {
  const auto x = call.input(0), place = call.input(1);
  const auto data = static_cast<const char*>(x.data);
  *call.output(0, {}) = moved(pwrite, place.ints()[0], place.ints()[1], data, x.size * sizeof(float));
}
static Op<put> putOp("MuscPut", {"x: float", "place: int32"}, {"done: float"});

// place: file descriptor, slot, length -> the vector in the slot
static void take(Call& call) {
  const auto place = call.input(0);
  const int64_t length = place.ints()[2];
  char* data = reinterpret_cast<char*>(call.output(0, {length}));
  if (!moved(pread, place.ints()[0], place.ints()[1], data, length * sizeof(float)))
    call.fail("shelf: slot must hold what is asked for, got less");
}
static Op<take> takeOp("MuscTake", {"place: int32"}, {"x: float"});
