#include "op.h"

// Writes rows into a table [P, H], in place -> the table. The last K H columns of x [M, >= K H] are K rows of H numbers
// of each of M tokens; at [K M] says by number where they go, those of the first head first. Settings: K.
// TensorFlow's own operation takes rows one by one, .1 µs each, whatever their length.
static void writeRows(Call& call) {
  const auto table = call.input(0), at = call.input(1), x = call.input(2);
  const int64_t K = call.settings[0], H = table.last(), P = table.rows(), width = x.last(), M = x.rows();
  REQUIRE(table.shape.size() == 2 && x.shape.size() == 2 && K > 0 && width >= K * H && at.is({K * M}),
          "write rows: shapes must agree");
  for (int64_t i = 0; i < K * M; i++)
    REQUIRE(at.ints()[i] >= 0 && at.ints()[i] < P, "write rows: a row lies outside of the table");
  float* to = const_cast<float*>(table.floats());
  for (int64_t g = 0; g < K; g++) {
    const float* from = x.floats() + width - (K - g) * H;
    for (int64_t t = 0; t < M; t++) std::copy_n(from + t * width, H, to + at.ints()[g * M + t] * H);
  }
  call.outputInput(0, 0);
}
static Op<writeRows> writeRowsOp("MuscWriteRows", {"table: float", "at: int32", "x: float"}, {"written: float"});
