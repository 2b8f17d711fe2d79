// Instructions that Go's assembler lacks, by the numbers of their registers: FADD4(m, n, d)
// is the processor's FADD Vd.4S, Vn.4S, Vm.4S, in the order that Go gives VADD's.

#define NEON3(op, m, n, d) WORD $((op) | ((m) << 16) | ((n) << 5) | (d))
#define NEON2(op, n, d) WORD $((op) | ((n) << 5) | (d))

#define FADD4(m, n, d) NEON3(0x4e20d400, m, n, d) // d = n + m
#define FSUB4(m, n, d) NEON3(0x4ea0d400, m, n, d) // d = n - m
#define FMUL4(m, n, d) NEON3(0x6e20dc00, m, n, d) // d = n * m
#define FDIV4(m, n, d) NEON3(0x6e20fc00, m, n, d) // d = n / m
#define FMAX4(m, n, d) NEON3(0x4e20f400, m, n, d) // NaN if either is
#define FMIN4(m, n, d) NEON3(0x4ea0f400, m, n, d)
#define FCMGT4(m, n, d) NEON3(0x6ea0e400, m, n, d) // d = all ones where n > m
#define FCMGE4(m, n, d) NEON3(0x6e20e400, m, n, d) // the same where n >= m
#define CMGT4(m, n, d) NEON3(0x4ea03400, m, n, d)  // the same of signed integers
#define MUL4(m, n, d) NEON3(0x4ea09c00, m, n, d)   // of 32-bit integers

#define ADD4(m, n, d) NEON3(0x4ea08400, m, n, d)   // of 32-bit integers
#define SUB4(m, n, d) NEON3(0x6ea08400, m, n, d)   // d = n - m, the same
#define AND16(m, n, d) NEON3(0x4e201c00, m, n, d)  // of all bits
#define BIC16(m, n, d) NEON3(0x4e601c00, m, n, d)  // d = n without the bits of m
#define ORR16(m, n, d) NEON3(0x4ea01c00, m, n, d)
#define BSL16(m, n, d) NEON3(0x6e601c00, m, n, d)  // d = n where the bits of d are set, m elsewhere

#define FSQRT4(n, d) NEON2(0x6ea1f800, n, d)
#define FABS4(n, d) NEON2(0x4ea0f800, n, d)
#define FNEG4(n, d) NEON2(0x6ea0f800, n, d)
#define FCMLTZ4(n, d) NEON2(0x4ea0e800, n, d) // d = all ones where n < 0
#define SCVTF4(n, d) NEON2(0x4e21d800, n, d)  // signed integers to float32
#define UCVTF4(n, d) NEON2(0x6e21d800, n, d)

#define FCVTL_H(n, d) NEON2(0x0e217800, n, d)  // four float16 to float32, from the lower half of n
#define FCVTL2_H(n, d) NEON2(0x4e217800, n, d) // from the upper
#define FCVTN_H(n, d) NEON2(0x0e216800, n, d)  // four float32 to float16, into the lower half of d
#define FCVTN2_H(n, d) NEON2(0x4e216800, n, d) // into the upper, keeping the lower
#define FCVTL_S(n, d) NEON2(0x0e617800, n, d)  // two float32 to float64
#define FCVTL2_S(n, d) NEON2(0x4e617800, n, d)

#define SXTL_B(n, d) NEON2(0x0f08a400, n, d) // eight int8 to int16
#define SXTL2_B(n, d) NEON2(0x4f08a400, n, d)
#define SXTL_H(n, d) NEON2(0x0f10a400, n, d) // four int16 to int32
#define SXTL2_H(n, d) NEON2(0x4f10a400, n, d)
#define SHL4(bits, n, d) WORD $(0x4f005400 | ((32 + (bits)) << 16) | ((n) << 5) | (d))
#define SSHR4(bits, n, d) WORD $(0x4f000400 | ((64 - (bits)) << 16) | ((n) << 5) | (d))

// FMLAE: d += n * element e of m, fused, in all four lanes.
#define FMLAE(m, e, n, d) WORD $(0x4f801000 | (((e) & 1) << 21) | (((e) >> 1) << 11) | ((m) << 16) | ((n) << 5) | (d))
// FMULE: d = n * element e of m.
#define FMULE(m, e, n, d) WORD $(0x4f809000 | (((e) & 1) << 21) | (((e) >> 1) << 11) | ((m) << 16) | ((n) << 5) | (d))
