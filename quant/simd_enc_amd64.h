// The vector encoders of both tiers: the searches of search.go with one group of
// values in each lane. simd_enc_avx2_amd64.s and simd_enc_avx512_amd64.s include this
// text after naming the functions, the vectors V0 to V15 and the masks M1 and M2;
// WIDE is defined for AVX-512.
//
// Values are turned: row i of a buffer has element i of sixteen groups, 64 bytes.
// AVX-512 does the sixteen at once; AVX2 does eight, and is called again with all
// pointers 32 bytes on. Every lane does the operations of the Go form in their
// order, none fused; a lane whose group is finished computes on and is not stored.
// Sums of a lane's state are rows, too, in the order of encLanes.state.

// Constants, in the order of encConst: rows of 64 bytes.
#define MAGIC  0(R8)   // 1.5*2^23: adding it rounds to an integer
#define MASK23 64(R8)  // 0x7fffff
#define EXP23  128(R8) // 0x4b000000: the exponent of 2^23
#define ABSF   192(R8) // 0x7fffffff
#define ONE    256(R8)
#define EPS    320(R8) // groupMaxEps
#define BYTE   384(R8) // 0xff
#define HALF22 448(R8) // 0x400000

// Rows of the state.
#define SCALE  0(BX)
#define LOW    64(BX)
#define ISCALE 128(BX)
#define RANGE  192(BX)
#define BEST   256(BX)
#define HIGH   320(BX)
#define SUMW   384(BX)
#define SUMX   448(BX)
#define ALIVE  512(BX)

#ifdef WIDE
// LESS: m = a < b, false for NaNs. ANDLESS: m &= a < b. NOTEQ: m = a != b, true for NaNs.
#define LESS(a, b, m)    VCMPPS $17, b, a, m
#define ANDLESS(a, b, m) VCMPPS $17, b, a, m, m
#define NOTEQ(a, b, m)   VCMPPS $4, b, a, m
#define ANDNOTEQ(a, b, m) VCMPPS $4, b, a, m, m
// PICK: old = m ? new : old.
#define PICK(m, new, old) VMOVAPS new, m, old
// ANY: AX = 0 if no lane of m is set.
#define ANY(m) KMOVW m, AX
#define KEEP(m)  VPMOVM2D m, V15 \
	VMOVUPS V15, ALIVE
#define AGAIN(m) VMOVUPS ALIVE, V15 \
	VPMOVD2M V15, m
// FIXBITS: the low 23 bits of v, as a float from 2^23 on.
#define FIXBITS(v) VPTERNLOGD $0xea, V13, V14, v
#define AND(a, v) VANDPS a, v, v
#define ANDD(a, v) VPANDD a, v, v
#else
#define LESS(a, b, m)    VCMPPS $17, b, a, m
#define ANDLESS(a, b, m) VCMPPS $17, b, a, Y12 \
	VANDPS Y12, m, m
#define NOTEQ(a, b, m)   VCMPPS $4, b, a, m
#define ANDNOTEQ(a, b, m) VCMPPS $4, b, a, Y12 \
	VANDPS Y12, m, m
#define PICK(m, new, old) VBLENDVPS m, new, old, old
#define ANY(m) VMOVMSKPS m, AX
#define KEEP(m)  VMOVUPS m, ALIVE
#define AGAIN(m) VMOVUPS ALIVE, m
#define FIXBITS(v) VANDPS V14, v, v \
	VORPS V13, v, v
#define AND(a, v) VANDPS a, v, v
#define ANDD(a, v) VPAND a, v, v
#endif

// V14 and V13 are MASK23 and EXP23 and V5 is MAGIC in all functions that round; V7
// and V8 are the lowest and the highest code, plus MAGIC.
#define CONSTANTS \
	VMOVUPS MASK23, V14 \
	VMOVUPS EXP23, V13  \
	VMOVUPS MAGIC, V5

// LIMITS reads the lowest and the highest code.
#define LIMITS(lo, hi) \
	VBROADCASTSS lo, V7  \
	VADDPS V5, V7, V7    \
	VBROADCASTSS hi, V8  \
	VADDPS V5, V8, V8

// ROUND is nearestInt and the clamp to the limits, as a float: beyond 2^22, too, the
// result is what the bits say.
#define ROUND(v) \
	VADDPS V5, v, v \
	FIXBITS(v)      \
	VMAXPS V7, v, v \
	VMINPS V8, v, v \
	VSUBPS V5, v, v

#define GROUPS \
	MOVQ x+0(FP), SI      \
	MOVQ w+8(FP), DX      \
	MOVQ codes+16(FP), DI \
	MOVQ state+24(FP), BX \
	MOVQ n+32(FP), CX     \
	SHLQ $6, CX           \
	LEAQ ·encConst(SB), R8

#define TRIES \
	MOVQ tries+40(FP), R9   \
	MOVQ count+48(FP), R10

// func weighImportance(x, w, codes, state *float32, n int): w (column importance) becomes
// w*sqrt(sigma2 + x*x), sigma2 in SUMX; the sum goes to SUMW.
TEXT FN_weighimportance(SB), NOSPLIT, $0-40
	GROUPS
	VMOVUPS SUMX, V1
	VXORPS  V2, V2, V2
	XORQ    R11, R11
loop:
	VMOVUPS (SI)(R11*1), V0
	VMULPS  V0, V0, V0
	VADDPS  V0, V1, V0
	VSQRTPS V0, V0
	VMULPS  (DX)(R11*1), V0, V0
	VMOVUPS V0, (DX)(R11*1)
	VADDPS  V0, V2, V2
	ADDQ    $64, R11
	CMPQ    R11, CX
	JLT     loop
	VMOVUPS V2, SUMW
	VZEROUPPER
	RET

// func weighMean(x, w, codes, state *float32, n int): w = root of the mean square + |x|.
// SUMX holds 1/n, a power of two.
TEXT FN_weighmean(SB), NOSPLIT, $0-40
	GROUPS
	VMOVUPS ABSF, V3
	VXORPS  V1, V1, V1
	XORQ    R11, R11
sum:
	VMOVUPS (SI)(R11*1), V0
	VMULPS  V0, V0, V0
	VADDPS  V0, V1, V1
	ADDQ    $64, R11
	CMPQ    R11, CX
	JLT     sum
	VMULPS  SUMX, V1, V1
	VSQRTPS V1, V1
	XORQ    R11, R11
loop:
	VANDPS  (SI)(R11*1), V3, V0
	VADDPS  V0, V1, V0
	VMOVUPS V0, (DX)(R11*1)
	ADDQ    $64, R11
	CMPQ    R11, CX
	JLT     loop
	VZEROUPPER
	RET

// func weighAbs(x, w, codes, state *float32, n int): w = |x|.
TEXT FN_weighabs(SB), NOSPLIT, $0-40
	GROUPS
	VMOVUPS ABSF, V3
	XORQ    R11, R11
loop:
	VANDPS  (SI)(R11*1), V3, V0
	VMOVUPS V0, (DX)(R11*1)
	ADDQ    $64, R11
	CMPQ    R11, CX
	JLT     loop
	VZEROUPPER
	RET

// func weighSquare(x, w, codes, state *float32, n int): w = x*x.
TEXT FN_weighsquare(SB), NOSPLIT, $0-40
	GROUPS
	XORQ    R11, R11
loop:
	VMOVUPS (SI)(R11*1), V0
	VMULPS  V0, V0, V0
	VMOVUPS V0, (DX)(R11*1)
	ADDQ    $64, R11
	CMPQ    R11, CX
	JLT     loop
	VZEROUPPER
	RET

// ERRORS: V4 = the weighted error of the codes under the scale V2 and the minimum V3,
// squared, or absolute if R12 is not zero. Clobbers V9.
#define ERRORS(square, absolute, done) \
	VXORPS  V4, V4, V4           \
	XORQ    R11, R11             \
	TESTQ   R12, R12             \
	JNE     absolute             \
square:                         \
	VMULPS  (DI)(R11*1), V2, V9  \
	VADDPS  V3, V9, V9           \
	VSUBPS  (SI)(R11*1), V9, V9  \
	VMULPS  V9, V9, V9           \
	VMULPS  (DX)(R11*1), V9, V9  \
	VADDPS  V9, V4, V4           \
	ADDQ    $64, R11             \
	CMPQ    R11, CX              \
	JLT     square               \
	JMP     done                 \
absolute:                       \
	VMULPS  (DI)(R11*1), V2, V9  \
	VADDPS  V3, V9, V9           \
	VSUBPS  (SI)(R11*1), V9, V9  \
	VANDPS  ABSF, V9, V9         \
	VMULPS  (DX)(R11*1), V9, V9  \
	VADDPS  V9, V4, V4           \
	ADDQ    $64, R11             \
	CMPQ    R11, CX              \
	JLT     absolute             \
done:

// func searchMin(x, w, codes, state *float32, n int, tries *float32, count int, low, high float32, mad int):
// searchScaleMin. The first of tries is nmax, the others the levels of each try; low is
// 0 and high nmax. SCALE and LOW are the result (LOW is the minimum itself), and
// ISCALE and RANGE give the codes: those of ISCALE*(x - RANGE). codes is scratch.
TEXT FN_searchmin(SB), NOSPLIT, $0-72
	GROUPS
	TRIES
	CONSTANTS
	LIMITS(low+56(FP), high+60(FP))
	MOVQ    mad+64(FP), R12
	VMOVUPS (SI), V0
	VMOVAPS V0, V1
	VMOVUPS (DX), V2
	VMULPS  V0, V2, V3
	MOVQ    $64, R11
range:
	VMOVUPS (SI)(R11*1), V9
	VMOVUPS (DX)(R11*1), V10
	VMINPS  V0, V9, V0
	VMAXPS  V1, V9, V1
	VADDPS  V10, V2, V2
	VMULPS  V9, V10, V10
	VADDPS  V10, V3, V3
	ADDQ    $64, R11
	CMPQ    R11, CX
	JLT     range
	VXORPS  V9, V9, V9
	VMINPS  V0, V9, V0 // 0 if the minimum is above
	LESS(V0, V1, M1)
	VMOVUPS V1, HIGH
	VMOVUPS V2, SUMW
	VMOVUPS V3, SUMX
	VMOVUPS V0, LOW
	VMOVUPS V0, RANGE
	VMOVUPS V9, SCALE
	VMOVUPS V9, ISCALE
	KEEP(M1)
	ANY(M1)
	TESTQ   AX, AX
	JEQ     out

	VSUBPS       V0, V1, V1
	VBROADCASTSS (R9), V2
	VDIVPS       V1, V2, V1 // iscale
	VMOVUPS      ONE, V2
	VDIVPS       V1, V2, V2 // scale
	VMOVAPS      V0, V3
	XORQ         R11, R11
first:
	VMOVUPS (SI)(R11*1), V9
	VSUBPS  V0, V9, V9
	VMULPS  V9, V1, V9
	ROUND(V9)
	VMOVUPS V9, (DI)(R11*1)
	ADDQ    $64, R11
	CMPQ    R11, CX
	JLT     first
	ERRORS(square0, absolute0, done0)
	VMOVUPS V4, BEST
	VMOVUPS SCALE, V9
	PICK(M1, V2, V9)
	VMOVUPS V9, SCALE
	VMOVUPS ISCALE, V9
	PICK(M1, V1, V9)
	VMOVUPS V9, ISCALE

try:
	ADDQ         $4, R9
	DECQ         R10
	JEQ          out
	VMOVUPS      LOW, V0
	VMOVUPS      HIGH, V1
	VSUBPS       V0, V1, V1
	VBROADCASTSS (R9), V2
	VDIVPS       V1, V2, V1
	VXORPS       V2, V2, V2 // sum of w*code
	VXORPS       V3, V3, V3 // w*code*code
	VXORPS       V4, V4, V4 // w*code*x
	XORQ         R11, R11
codes:
	VMOVUPS (SI)(R11*1), V9
	VSUBPS  V0, V9, V10
	VMULPS  V10, V1, V10
	ROUND(V10)
	VMOVUPS V10, (DI)(R11*1)
	VMULPS  (DX)(R11*1), V10, V11
	VADDPS  V11, V2, V2
	VMULPS  V10, V11, V12
	VADDPS  V12, V3, V3
	VMULPS  V9, V11, V11
	VADDPS  V11, V4, V4
	ADDQ    $64, R11
	CMPQ    R11, CX
	JLT     codes

	VMOVUPS SUMW, V9
	VMOVUPS SUMX, V10
	VMULPS  V3, V9, V11
	VMULPS  V2, V2, V12
	VSUBPS  V12, V11, V11 // det
	VXORPS  V6, V6, V6
	AGAIN(M1)
	ANDLESS(V6, V11, M1)
	VMULPS  V4, V9, V9
	VMULPS  V2, V10, V12
	VSUBPS  V12, V9, V9
	VDIVPS  V11, V9, V9 // scale
	VMULPS  V10, V3, V10
	VMULPS  V4, V2, V12
	VSUBPS  V12, V10, V10
	VDIVPS  V11, V10, V10 // minimum
	LESS(V6, V10, M2)
	VDIVPS  V3, V4, V11
	PICK(M2, V11, V9)
	PICK(M2, V6, V10)
	VMOVAPS V9, V2
	VMOVAPS V10, V3
	ERRORS(square, absolute, done)
	VMOVUPS BEST, V9
	ANDLESS(V4, V9, M1)
	ANY(M1)
	TESTQ   AX, AX
	JEQ     try
	PICK(M1, V4, V9)
	VMOVUPS V9, BEST
	VMOVUPS SCALE, V9
	PICK(M1, V2, V9)
	VMOVUPS V9, SCALE
	VMOVUPS ISCALE, V9
	PICK(M1, V1, V9)
	VMOVUPS V9, ISCALE
	VMOVUPS RANGE, V9
	PICK(M1, V0, V9)
	VMOVUPS V9, RANGE
	PICK(M1, V3, V0)
	VMOVUPS V0, LOW
	JMP     try
out:
	VZEROUPPER
	RET

// EXTREME: V1 = the value of the largest magnitude, the first such; M1 = the lanes
// where it counts as more than zero. Clobbers V0, V2, V3, V4.
#define EXTREME(loop) \
	VXORPS  V0, V0, V0      \
	VXORPS  V1, V1, V1      \
	VMOVUPS ABSF, V4        \
	XORQ    R11, R11        \
loop:                      \
	VMOVUPS (SI)(R11*1), V2 \
	VANDPS  V4, V2, V3      \
	LESS(V0, V3, M2)        \
	PICK(M2, V3, V0)        \
	PICK(M2, V2, V1)        \
	ADDQ    $64, R11        \
	CMPQ    R11, CX         \
	JLT     loop            \
	VMOVUPS EPS, V2         \
	VCMPPS  $5, V2, V0, M1

// FIT: V3, V4 = the sums of w*x*code and w*code*code, codes those of V2*x. Clobbers V9
// to V11.
#define FIT(loop) \
	VXORPS  V3, V3, V3      \
	VXORPS  V4, V4, V4      \
	XORQ    R11, R11        \
loop:                      \
	VMOVUPS (SI)(R11*1), V9 \
	VMULPS  V9, V2, V10     \
	ROUND(V10)              \
	VMOVUPS (DX)(R11*1), V11 \
	VMULPS  V11, V9, V9     \
	VMULPS  V10, V9, V9     \
	VADDPS  V9, V3, V3      \
	VMULPS  V10, V11, V11   \
	VMULPS  V10, V11, V11   \
	VADDPS  V11, V4, V4     \
	ADDQ    $64, R11        \
	CMPQ    R11, CX         \
	JLT     loop

// func searchScale(x, w, codes, state *float32, n int, tries *float32, count int, low, high float32):
// searchScale. Each of tries is what is divided by the largest value. SCALE is the result,
// and the codes are those of ISCALE*x; a zero there means that all values are zero.
TEXT FN_searchscale(SB), NOSPLIT, $0-64
	GROUPS
	TRIES
	CONSTANTS
	LIMITS(low+56(FP), high+60(FP))
	EXTREME(extreme)
	VMOVUPS V1, HIGH
	VXORPS  V6, V6, V6
	VMOVUPS V6, SCALE
	VMOVUPS V6, ISCALE
	KEEP(M1)
	ANY(M1)
	TESTQ   AX, AX
	JEQ     out
	VBROADCASTSS (R9), V2
	VDIVPS  V1, V2, V2
	FIT(first)
	VDIVPS  V4, V3, V9
	VXORPS  V10, V10, V10
	NOTEQ(V4, V6, M2)
	PICK(M2, V9, V10)
	VMULPS  V3, V10, V9
	VMOVUPS V9, BEST
	AGAIN(M1)
	VXORPS  V9, V9, V9
	PICK(M1, V10, V9)
	VMOVUPS V9, SCALE
	VXORPS  V9, V9, V9
	PICK(M1, V2, V9)
	VMOVUPS V9, ISCALE
try:
	ADDQ    $4, R9
	DECQ    R10
	JEQ     out
	VMOVUPS HIGH, V1
	VBROADCASTSS (R9), V2
	VDIVPS  V1, V2, V2
	FIT(fit)
	AGAIN(M1)
	ANDLESS(V6, V4, M1)
	VMOVUPS BEST, V9
	VMULPS  V4, V9, V10
	VMULPS  V3, V3, V11
	ANDLESS(V10, V11, M1)
	ANY(M1)
	TESTQ   AX, AX
	JEQ     try
	VDIVPS  V4, V3, V10
	VMULPS  V3, V10, V11
	PICK(M1, V11, V9)
	VMOVUPS V9, BEST
	VMOVUPS SCALE, V9
	PICK(M1, V10, V9)
	VMOVUPS V9, SCALE
	VMOVUPS ISCALE, V9
	PICK(M1, V2, V9)
	VMOVUPS V9, ISCALE
	JMP     try
out:
	VZEROUPPER
	RET

// func searchDescent(x, w, codes, state *float32, n int, tries *float32, count int, low, high float32):
// searchDescent with the squares in w. The first of tries is -nmax. SCALE is the result,
// codes the codes as floats; a zero in ISCALE means that all values are zero.
TEXT FN_searchdescent(SB), NOSPLIT, $0-64
	GROUPS
	TRIES
	CONSTANTS
	LIMITS(low+56(FP), high+60(FP))
	EXTREME(extreme)
	VXORPS  V6, V6, V6
	VMOVUPS V6, SCALE
	VMOVUPS V6, ISCALE
	KEEP(M1)
	ANY(M1)
	TESTQ   AX, AX
	JEQ     out
	VBROADCASTSS (R9), V2
	VDIVPS  V1, V2, V2
	VXORPS  V9, V9, V9
	PICK(M1, V2, V9)
	VMOVUPS V9, ISCALE
	VXORPS  V3, V3, V3
	VXORPS  V4, V4, V4
	XORQ    R11, R11
first:
	VMOVUPS (SI)(R11*1), V9
	VMULPS  V9, V2, V10
	ROUND(V10)
	VMOVUPS V10, (DI)(R11*1)
	VMOVUPS (DX)(R11*1), V11
	VMULPS  V11, V9, V9
	VMULPS  V10, V9, V9
	VADDPS  V9, V3, V3
	VMULPS  V10, V11, V11
	VMULPS  V10, V11, V11
	VADDPS  V11, V4, V4
	ADDQ    $64, R11
	CMPQ    R11, CX
	JLT     first
	MOVQ    $5, R10
round:
	XORQ    R12, R12
	XORQ    R11, R11
element:
	VMOVUPS (SI)(R11*1), V0
	VMOVUPS (DX)(R11*1), V1
	VMOVUPS (DI)(R11*1), V2
	VMULPS  V0, V1, V9   // w*x
	VMULPS  V2, V9, V10
	VSUBPS  V10, V3, V10 // slx without this element
	VMULPS  V2, V1, V11
	VMULPS  V2, V11, V11
	VSUBPS  V11, V4, V11 // sl2
	VMULPS  V11, V0, V0
	VDIVPS  V10, V0, V0
	ROUND(V0)
	AGAIN(M1)
	ANDLESS(V6, V10, M1)
	ANDNOTEQ(V0, V2, M1)
	VMULPS  V0, V9, V9
	VADDPS  V9, V10, V10
	VMULPS  V0, V1, V1
	VMULPS  V0, V1, V1
	VADDPS  V1, V11, V11
	ANDLESS(V6, V11, M1)
	VMULPS  V10, V10, V9
	VMULPS  V4, V9, V9
	VMULPS  V3, V3, V1
	VMULPS  V11, V1, V1
	ANDLESS(V1, V9, M1)
	ANY(M1)
	ORQ     AX, R12
	PICK(M1, V0, V2)
	PICK(M1, V10, V3)
	PICK(M1, V11, V4)
	VMOVUPS V2, (DI)(R11*1)
	ADDQ    $64, R11
	CMPQ    R11, CX
	JLT     element
	TESTQ   R12, R12
	JEQ     result
	DECQ    R10
	JNE     round
result:
	AGAIN(M1)
	ANDLESS(V6, V4, M1)
	VDIVPS  V4, V3, V9
	VXORPS  V10, V10, V10
	PICK(M1, V9, V10)
	VMOVUPS V10, SCALE
out:
	VZEROUPPER
	RET
