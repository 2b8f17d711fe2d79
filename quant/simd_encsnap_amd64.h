// The nearest point of a lattice, included after simd_enciq_amd64.h: one candidate in each
// lane, its error summed over the dimensions in their order.

#define POINT5  1088(R8)
#define MAXF    1152(R8) // the largest float
#define IOTA    1216(R8)
#define STEP16  1280(R8)
#define STEP8   1344(R8)

// latticeVector, at BX.
#define INDEX  0(BX)
#define LEVELS8 8(BX)  // packed levels of the candidates
#define NEAR   16(BX)
#define DIMS   24(BX)
#define BITS8  32(BX)
#define SHIFTS 64(BX)
#define TOP    96(BX)
#define MASK8  128(BX)
#define VALUES 160(BX)

#ifdef WIDE
#define STEP  STEP16
#define WIDTH 16
#define VALID(index, count, m) VPCMPGTD index, count, m, m
#define UPPER(v, y, op) \
	VEXTRACTF64X4 $1, v, Y2 \
	op Y2, y, Y1
#else
#define STEP  STEP8
#define WIDTH 8
#define VALID(index, count, m) VPCMPGTD index, count, Y12 \
	VPAND Y12, m, m
#define UPPER(v, y, op) VMOVAPS y, Y1
#endif

// REDUCE: X1 = op over all lanes of v, whose lower half is y. Clobbers Y2.
#define REDUCE(v, y, op) \
	UPPER(v, y, op)         \
	VEXTRACTF128 $1, Y1, X2 \
	op X2, X1, X1           \
	VPSHUFD $0x4e, X1, X2   \
	op X2, X1, X1           \
	VPSHUFD $0xb1, X1, X2   \
	op X2, X1, X1

// SCAN: AX = the number of the candidate with the least error, the first such, or of the
// first of all if no error is a number. R9 are the candidates, R11 their count, SI and DX
// values and weights, CX the dimensions, V8 the values of levels, V9 the scale. Clobbers R13.
#define SCAN(loop, dim, found) \
	VMOVUPS MAXF, V4         \
	VMOVUPS ABSF, V5         \
	VMOVUPS IOTA, V6         \
	VMOVQ   R11, X7          \
	VPBROADCASTD X7, V7      \
	VMOVQ   BITS8, X10       \
	MOVQ    R9, R13          \
loop:                       \
	VPMOVZXWD (R13), V0      \
	VXORPS  V1, V1, V1       \
	XORQ    AX, AX           \
dim:                        \
	VPERMPS V8, V0, V2       \
	VPSRLD  X10, V0, V0      \
	VMULPS  V9, V2, V2       \
	VBROADCASTSS (SI)(AX*4), V3 \
	VSUBPS  V3, V2, V2       \
	VBROADCASTSS (DX)(AX*4), V3 \
	VMULPS  V2, V3, V3       \
	VMULPS  V2, V3, V3       \
	VADDPS  V3, V1, V1       \
	INCQ    AX               \
	CMPQ    AX, CX           \
	JLT     dim              \
	LESS(V1, V4, M1)         \
	VALID(V6, V7, M1)        \
	PICK(M1, V1, V4)         \
	PICK(M1, V6, V5)         \
	VPADDD  STEP, V6, V6     \
	ADDQ    $(2*WIDTH), R13  \
	SUBQ    $WIDTH, R11      \
	JG      loop             \
	REDUCE(V4, Y4, VMINPS)   \
	VBROADCASTSS X1, V1      \
	VCMPPS  $0, V1, V4, M1   \
	VMOVUPS ABSF, V0         \
	PICK(M1, V5, V0)         \
	REDUCE(V0, Y0, VPMINSD)  \
	VMOVD   X1, AX           \
	CMPL    AX, $0x7fffffff  \
	JNE     found            \
	XORL    AX, AX           \
found:

// func nearest(t *latticeVector, candidates *uint16, count int, x, w, values *float32, scale float32) int:
// the number of the candidate nearest to x. values are those of sixteen levels.
TEXT FN_nearest(SB), NOSPLIT, $0-64
	MOVQ t+0(FP), BX
	MOVQ candidates+8(FP), R9
	MOVQ count+16(FP), R11
	MOVQ x+24(FP), SI
	MOVQ w+32(FP), DX
	MOVQ values+40(FP), AX
	MOVQ DIMS, CX
	LEAQ ·encConst(SB), R8
	VMOVUPS (AX), V8
	VBROADCASTSS scale+48(FP), V9
	SCAN(loop, dim, found)
	MOVQ AX, ret+56(FP)
	VZEROUPPER
	RET

// func snap(t *latticeVector, levels *uint8, x, w *float32, id, scale float32) int:
// lattice.snap. It returns 1 if the levels were a point, else 0.
TEXT FN_snap(SB), NOSPLIT, $0-48
	MOVQ t+0(FP), BX
	MOVQ levels+8(FP), DI
	MOVQ x+16(FP), SI
	MOVQ w+24(FP), DX
	MOVQ DIMS, CX
	LEAQ ·encConst(SB), R8
	CMPQ CX, $8
	JEQ  whole
	VMOVUPS (SI), X0 // the levels of the upper half are 0
	JMP  round
whole:
	VMOVUPS (SI), Y0
round:
	VBROADCASTSS id+32(FP), Y1
	VMULPS  Y0, Y1, Y0
	VSUBPS  ONE, Y0, Y0
	VMULPS  POINT5, Y0, Y0
	VADDPS  MAGIC, Y0, Y0
	VPAND   MASK23, Y0, Y0
	VPSUBD  HALF22, Y0, Y0
	VPXOR   Y2, Y2, Y2
	VPMAXSD Y2, Y0, Y0
	VPMINSD TOP, Y0, Y0
	VPSLLVD SHIFTS, Y0, Y1
	VEXTRACTI128 $1, Y1, X2
	VPOR    X2, X1, X1
	VPSHUFD $0x4e, X1, X2
	VPOR    X2, X1, X1
	VPSHUFD $0xb1, X1, X2
	VPOR    X2, X1, X1
	VMOVD   X1, AX
	MOVQ    INDEX, R9
	MOVLQSX (R9)(AX*4), R10
	MOVQ    $1, R12
	TESTQ   R10, R10
	JGE     store
	NOTQ    R10
	MOVQ    NEAR, R9
	MOVWLZX (R9)(R10*2), R11
	MOVQ    LEVELS8, R9
	LEAQ    2(R9)(R10*2), R9
	VMOVUPS VALUES, V8
	VBROADCASTSS scale+36(FP), V9
	SCAN(loop, dim, found)
	MOVWLZX (R9)(AX*2), AX
	VMOVD   AX, X0
	VPBROADCASTD X0, Y0
	VPSRLVD SHIFTS, Y0, Y0
	VPAND   MASK8, Y0, Y0
	XORL    R12, R12
store:
	VEXTRACTI128 $1, Y0, X1
	VPACKUSDW X1, X0, X0
	VPACKUSWB X0, X0, X0
	CMPQ    CX, $8
	JEQ     eight
	VMOVD   X0, (DI)
	JMP     done
eight:
	VMOVQ   X0, (DI)
done:
	MOVQ    R12, ret+40(FP)
	VZEROUPPER
	RET
