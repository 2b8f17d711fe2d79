// The searches of lattices, included after simd_enciq_amd64.h.

#define POINT5  1088(R8)
#define MAXF    1152(R8) // the largest float
#define IOTA    1216(R8)
#define STEP16  1280(R8)
#define STEP8   1344(R8)

// latticeVector, at BX.
#define LISTSTART 0(BX)
#define LISTS  8(BX)
#define DIMS   16(BX)
#define BITS8  24(BX)
#define SHIFTS 64(BX)
#define TOP    96(BX)
#define VALUES 128(BX)

// SUBB: d = a minus the float at m in every lane; MULB: times. REDUCE: X6 = op over all
// lanes of v, whose lower half is y. Clobbers Y7.
#ifdef WIDE
#define STEP  STEP16
#define CHUNKS 0
#define SUBB(m, a, d) VSUBPS.BCST m, a, d
#define MULB(m, a, d) VMULPS.BCST m, a, d
#define REDUCE(v, y, op) \
	VEXTRACTF64X4 $1, v, Y6 \
	op Y6, y, Y6            \
	VEXTRACTF128 $1, Y6, X7 \
	op X7, X6, X6           \
	VPSHUFD $0x4e, X6, X7   \
	op X7, X6, X6           \
	VPSHUFD $0xb1, X6, X7   \
	op X7, X6, X6
#define LANES(m) KMOVW m, AX
#else
#define STEP  STEP8
#define CHUNKS 2
#define SUBB(m, a, d) VBROADCASTSS m, V13 \
	VSUBPS V13, a, d
#define MULB(m, a, d) VBROADCASTSS m, V13 \
	VMULPS V13, a, d
#define REDUCE(v, y, op) \
	VEXTRACTF128 $1, y, X7  \
	op X7, X5, X6           \
	VPSHUFD $0x4e, X6, X7   \
	op X7, X6, X6           \
	VPSHUFD $0xb1, X6, X7   \
	op X7, X6, X6
#define LANES(m) VMOVMSKPS m, AX
#endif

// TERM: e = the error of each level at dimension i, V8 being the values under the scale.
// Clobbers V9, V10, V13.
#define TERM(i, e) \
	SUBB(4*i(SI), V8, V9)  \
	MULB(4*i(DX), V9, V10) \
	VMULPS V9, V10, e

// DIM: V14 += the errors e of the next levels of the candidates V11. Clobbers V13.
#define DIM(bits, e) \
	VPSRLD  $bits, V11, V11 \
	VPERMPS e, V11, V13     \
	VADDPS  V13, V14, V14

#define ERRORS4 \
	VPMOVZXWD (R9), V11  \
	VPERMPS   V0, V11, V14 \
	DIM(3, V1)           \
	DIM(3, V2)           \
	DIM(3, V3)

#define ERRORS8 \
	VPMOVZXWD (R9), V11  \
	VPERMPS   V0, V11, V14 \
	DIM(2, V1)           \
	DIM(2, V2)           \
	DIM(2, V3)           \
	DIM(2, V4)           \
	DIM(2, V5)           \
	DIM(2, V6)           \
	DIM(2, V7)

// OPENLIST: R9 = the candidates of the levels at DI, R11 their number of chunks, V8 the
// values under the scale at R13.
#define OPENLIST \
	MOVL    (DI), AX          \
	MOVQ    LISTSTART, R9     \
	MOVLQSX (R9)(AX*4), AX    \
	MOVQ    LISTS, R9         \
	LEAQ    4(R9)(AX*2), R9   \
	MOVWLZX (CHUNKS-4)(R9), R11 \
	MOVQ    R9, R14           \
	VBROADCASTSS (R13), V8    \
	VMULPS  (R12), V8, V8

// LEAST: AX = the number of the candidate with the least error in V14, the first such;
// an error that is no number, or infinite, counts as the largest float.
#define LEAST \
	VMINPS  MAXF, V14, V5   \
	REDUCE(V5, Y5, VMINPS)  \
	VBROADCASTSS X6, V6     \
	VCMPPS  $0, V6, V5, M1  \
	LANES(M1)               \
	BSFL    AX, AX

// MANY: the same over several chunks, each found by errors. V8 is the least in a lane,
// V9 its number, V10 the number of the current one.
#define MANY(loop, errors) \
	VMOVUPS MAXF, V8        \
	VMOVUPS ABSF, V9        \
	VMOVUPS IOTA, V10       \
loop:                      \
	errors                  \
	LESS(V14, V8, M1)       \
	PICK(M1, V14, V8)       \
	PICK(M1, V10, V9)       \
	VPADDD  STEP, V10, V10  \
	ADDQ    $(2*WIDTH), R9  \
	DECQ    R11             \
	JNE     loop            \
	VMOVAPS V8, V5          \
	REDUCE(V5, Y5, VMINPS)  \
	VBROADCASTSS X6, V6     \
	VCMPPS  $0, V6, V8, M1  \
	VMOVUPS ABSF, V5        \
	PICK(M1, V9, V5)        \
	REDUCE(V5, Y5, VPMINSD) \
	VMOVD   X6, AX          \
	XORL    R11, R11        \
	CMPL    AX, $0x7fffffff \
	CMOVLEQ R11, AX

// func scan(t *latticeVector, x, w, values, scales *float32, u *uint32, count int): for
// each of count scales the packed levels at u become those of the nearest point. values are
// those of sixteen levels.
TEXT FN_scan(SB), NOSPLIT, $0-56
	MOVQ t+0(FP), BX
	MOVQ x+8(FP), SI
	MOVQ w+16(FP), DX
	MOVQ values+24(FP), R12
	MOVQ scales+32(FP), R13
	MOVQ u+40(FP), DI
	MOVQ count+48(FP), R10
	LEAQ ·encConst(SB), R8
	CMPQ DIMS, $4
	JNE  eight
four:
	OPENLIST
	TERM(0, V0)
	TERM(1, V1)
	TERM(2, V2)
	TERM(3, V3)
	CMPQ R11, $1
	JNE  many4
	ERRORS4
	LEAST
next4:
	MOVWLZX (R14)(AX*2), AX
	MOVL AX, (DI)
	ADDQ $4, DI
	ADDQ $4, R13
	DECQ R10
	JNE  four
	VZEROUPPER
	RET
many4:
	MANY(loop4, ERRORS4)
	JMP  next4
eight:
	OPENLIST
	TERM(0, V0)
	TERM(1, V1)
	TERM(2, V2)
	TERM(3, V3)
	TERM(4, V4)
	TERM(5, V5)
	TERM(6, V6)
	TERM(7, V7)
	CMPQ R11, $1
	JNE  many8
	ERRORS8
	LEAST
next8:
	MOVWLZX (R14)(AX*2), AX
	MOVL AX, (DI)
	ADDQ $4, DI
	ADDQ $4, R13
	DECQ R10
	JNE  eight
	VZEROUPPER
	RET
many8:
	MANY(loop8, ERRORS8)
	JMP  next8

// func round(t *latticeVector, x, ids *float32, count int, u *uint32, stride, n int): for
// each of count ids, the packed levels of the n values (a multiple of 8): those of group k
// under id j go to u[k*stride + j].
TEXT FN_round(SB), NOSPLIT, $0-56
	MOVQ t+0(FP), BX
	MOVQ x+8(FP), SI
	MOVQ ids+16(FP), R13
	MOVQ u+32(FP), DI
	MOVQ stride+40(FP), R12
	SHLQ $2, R12
	LEAQ ·encConst(SB), R8
	VMOVUPS ONE, Y8
	VMOVUPS POINT5, Y9
	VMOVUPS MAGIC, Y10
	VMOVUPS MASK23, Y11
	VMOVUPS HALF22, Y12
	VPXOR   Y13, Y13, Y13
	VMOVUPS TOP, Y14
	VMOVUPS SHIFTS, Y15
	MOVQ n+48(FP), CX
groups:
	VMOVUPS (SI), Y7
	MOVQ count+24(FP), R10
	XORQ R11, R11
try:
	VBROADCASTSS (R13)(R11*4), Y0
	VMULPS  Y7, Y0, Y0
	VSUBPS  Y8, Y0, Y0
	VMULPS  Y9, Y0, Y0
	VADDPS  Y10, Y0, Y0
	VPAND   Y11, Y0, Y0
	VPSUBD  Y12, Y0, Y0
	VPMAXSD Y13, Y0, Y0
	VPMINSD Y14, Y0, Y0
	VPSLLVD Y15, Y0, Y0
	VPSHUFD $0x4e, Y0, Y1
	VPOR    Y1, Y0, Y0
	VPSHUFD $0xb1, Y0, Y1
	VPOR    Y1, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	CMPQ    DIMS, $4
	JEQ     two
	VPOR    X1, X0, X0
	VMOVD   X0, (DI)(R11*4)
	JMP     next
two:
	VMOVD   X0, (DI)(R11*4)
	LEAQ    (DI)(R12*1), R9
	VMOVD   X1, (R9)(R11*4)
next:
	INCQ    R11
	CMPQ    R11, R10
	JLT     try
	ADDQ    $32, SI
	ADDQ    R12, DI
	CMPQ    DIMS, $4
	JNE     one
	ADDQ    R12, DI
one:
	SUBQ    $8, CX
	JG      groups
	VZEROUPPER
	RET

// func fit(t *latticeVector, wx, w *float32, u *uint32, stride, groups int, sumqx, sumq2 *float32, count int):
// for each of count tries, which fill whole vectors, the sums of w*x*q and w*q*q over the values q
// of the levels in u; wx are the products w*x.
TEXT FN_fit(SB), NOSPLIT, $0-72
	MOVQ t+0(FP), BX
	MOVQ u+24(FP), DI
	MOVQ stride+32(FP), R12
	SHLQ $2, R12
	MOVQ sumqx+48(FP), R13
	MOVQ sumq2+56(FP), R14
	MOVQ count+64(FP), R10
	VMOVUPS VALUES, V8
	VMOVQ   BITS8, X9
lanes:
	MOVQ wx+8(FP), SI
	MOVQ w+16(FP), DX
	MOVQ groups+40(FP), CX
	MOVQ DI, R9
	VXORPS V0, V0, V0
	VXORPS V1, V1, V1
group:
	VMOVUPS (R9), V2
	MOVQ DIMS, R11
dim:
	VPERMPS V8, V2, V3
	VPSRLD  X9, V2, V2
	MULB((SI), V3, V4)
	VADDPS  V4, V0, V0
	MULB((DX), V3, V4)
	VMULPS  V3, V4, V4
	VADDPS  V4, V1, V1
	ADDQ    $4, SI
	ADDQ    $4, DX
	DECQ    R11
	JNE     dim
	ADDQ    R12, R9
	DECQ    CX
	JNE     group
	VMOVUPS V0, (R13)
	VMOVUPS V1, (R14)
	ADDQ    $(4*WIDTH), DI
	ADDQ    $(4*WIDTH), R13
	ADDQ    $(4*WIDTH), R14
	SUBQ    $WIDTH, R10
	JG      lanes
	VZEROUPPER
	RET
