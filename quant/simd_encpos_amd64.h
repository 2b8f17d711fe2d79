// Further vector encoders, included after simd_enc_amd64.h: the scales of super-blocks,
// and what is done to values as they lie in a row.

// NEAREST is nearestInt: V14 is MASK23, V13 HALF22 and V5 MAGIC.
#define NEAREST(v) \
	VADDPS V5, v, v  \
	ANDD(V14, v)     \
	VPSUBD V13, v, v

// func searchPositive(x, w, codes, state *float32, n int, tries *float32, count int, high int32):
// searchPositive, for the scales or minimums of sixteen super-blocks. The first of
// tries is nmax, high too. SCALE is the result, codes the codes as floats. Codes wrap as
// the bytes of the Go form do.
TEXT FN_searchpositive(SB), NOSPLIT, $0-60
	GROUPS
	TRIES
	VMOVUPS MASK23, V14
	VMOVUPS HALF22, V13
	VMOVUPS MAGIC, V5
	VPBROADCASTD high+56(FP), V8
	VMOVUPS BYTE, V7
	VXORPS  V6, V6, V6
	VXORPS  V0, V0, V0
	XORQ    R11, R11
extreme:
	VMAXPS  (SI)(R11*1), V0, V0
	VMOVUPS V6, (DI)(R11*1)
	ADDQ    $64, R11
	CMPQ    R11, CX
	JLT     extreme
	VMOVUPS V6, SCALE
	VMOVUPS V0, HIGH
	VMOVUPS EPS, V2
	VCMPPS  $5, V2, V0, M1
	KEEP(M1)
	ANY(M1)
	TESTQ   AX, AX
	JEQ     out

	VBROADCASTSS (R9), V1
	VDIVPS  V0, V1, V1 // iscale
	VMOVUPS ONE, V2
	VDIVPS  V1, V2, V2 // scale
	VXORPS  V3, V3, V3 // error
	XORQ    R11, R11
first:
	VMOVUPS (SI)(R11*1), V9
	VMULPS  V9, V1, V10
	NEAREST(V10)
	ANDD(V7, V10)
	VCVTDQ2PS V10, V10
	VMULPS  V10, V2, V10
	VSUBPS  V10, V9, V9
	VMULPS  (DX)(R11*1), V9, V10
	VMULPS  V9, V10, V10
	VADDPS  V10, V3, V3
	ADDQ    $64, R11
	CMPQ    R11, CX
	JLT     first
	VMOVUPS V3, BEST
	VMOVUPS V1, ISCALE
try:
	ADDQ    $4, R9
	DECQ    R10
	JEQ     fit
	VMOVUPS HIGH, V0
	VBROADCASTSS (R9), V1
	VDIVPS  V0, V1, V1
	VMOVUPS ONE, V2
	VDIVPS  V1, V2, V2
	VXORPS  V3, V3, V3
	XORQ    R11, R11
error:
	VMOVUPS (SI)(R11*1), V9
	VMULPS  V9, V1, V10
	NEAREST(V10)
	VPMINSD V8, V10, V10
	VCVTDQ2PS V10, V10
	VMULPS  V10, V2, V10
	VSUBPS  V10, V9, V9
	VMULPS  (DX)(R11*1), V9, V10
	VMULPS  V9, V10, V10
	VADDPS  V10, V3, V3
	ADDQ    $64, R11
	CMPQ    R11, CX
	JLT     error
	VMOVUPS BEST, V9
	LESS(V3, V9, M1)
	PICK(M1, V3, V9)
	VMOVUPS V9, BEST
	VMOVUPS ISCALE, V9
	PICK(M1, V1, V9)
	VMOVUPS V9, ISCALE
	JMP     try

fit:
	VMOVUPS ISCALE, V1
	VXORPS  V3, V3, V3
	VXORPS  V4, V4, V4
	XORQ    R11, R11
codes:
	VMOVUPS (SI)(R11*1), V9
	VMULPS  V9, V1, V10
	NEAREST(V10)
	VPMINSD V8, V10, V10
	VMOVAPS V10, V0
	ANDD(V7, V0)
	VCVTDQ2PS V0, V0
	AGAIN(M1)
	VXORPS  V2, V2, V2
	PICK(M1, V0, V2)
	VMOVUPS V2, (DI)(R11*1)
	VCVTDQ2PS V10, V10
	VMOVUPS (DX)(R11*1), V11
	VMULPS  V11, V9, V9
	VMULPS  V10, V9, V9
	VADDPS  V9, V3, V3
	VMULPS  V10, V11, V11
	VMULPS  V10, V11, V11
	VADDPS  V11, V4, V4
	ADDQ    $64, R11
	CMPQ    R11, CX
	JLT     codes
	MOVQ    $5, R10
round:
	XORQ    R12, R12
	XORQ    R11, R11
element:
	VMOVUPS (SI)(R11*1), V0
	VMOVUPS (DX)(R11*1), V1
	VMOVUPS (DI)(R11*1), V2
	VMULPS  V0, V1, V9
	VMULPS  V2, V9, V10
	VSUBPS  V10, V3, V10
	VMULPS  V2, V1, V11
	VMULPS  V2, V11, V11
	VSUBPS  V11, V4, V11
	VMULPS  V11, V0, V0
	VDIVPS  V10, V0, V0
	NEAREST(V0)
	VPMINSD V8, V0, V0
	AGAIN(M1)
	ANDLESS(V6, V10, M1)
	ANDLESS(V6, V11, M1)
	VCVTDQ2PS V0, V12
	VMULPS  V12, V9, V9
	VADDPS  V9, V10, V10
	VMULPS  V12, V1, V1
	VMULPS  V12, V1, V1
	VADDPS  V1, V11, V11
	VMOVAPS V12, V9
	ANDNOTEQ(V9, V2, M1)
	VMULPS  V10, V10, V9
	VMULPS  V4, V9, V9
	VMULPS  V3, V3, V1
	VMULPS  V11, V1, V1
	ANDLESS(V1, V9, M1)
	ANY(M1)
	ORQ     AX, R12
	ANDD(V7, V0)
	VCVTDQ2PS V0, V0
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

#ifdef WIDE
// BYTES16 writes the codes of sixteen values, OP of them all, at DI.
#define BYTES16(OP) \
	VMOVUPS (SI), V0    \
	OP(V0)              \
	VADDPS  V5, V0, V0  \
	FIXBITS(V0)         \
	VMAXPS  V7, V0, V0  \
	VMINPS  V8, V0, V0  \
	VSUBPS  V7, V0, V0  \
	VCVTTPS2DQ V0, V0   \
	VPMOVDB Z0, (DI)
#else
#define BYTES16(OP) \
	VMOVUPS (SI), V0    \
	VMOVUPS 32(SI), V1  \
	OP(V0)              \
	OP(V1)              \
	VADDPS  V5, V0, V0  \
	VADDPS  V5, V1, V1  \
	FIXBITS(V0)         \
	FIXBITS(V1)         \
	VMAXPS  V7, V0, V0  \
	VMAXPS  V7, V1, V1  \
	VMINPS  V8, V0, V0  \
	VMINPS  V8, V1, V1  \
	VSUBPS  V7, V0, V0  \
	VSUBPS  V7, V1, V1  \
	VCVTTPS2DQ V0, V0   \
	VCVTTPS2DQ V1, V1   \
	VPACKSSDW  Y1, Y0, Y0 \
	VPERMQ     $0xd8, Y0, Y0 \
	VEXTRACTI128 $1, Y0, X1 \
	VPACKUSWB  X1, X0, X0 \
	VMOVDQU    X0, (DI)
#endif

#define DIVIDED(v) \
	VADDPS V3, v, v \
	VDIVPS V2, v, v

// func requantize(codes *byte, x, scales, mins *float32, groups, n int, low, high float32):
// for each group of n values, a multiple of 16, the codes, from 0 on, of (x + min)/scale, between low
// and high. Groups of scale zero are left alone.
TEXT FN_requantize(SB), NOSPLIT, $0-56
	MOVQ codes+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ scales+16(FP), R9
	MOVQ mins+24(FP), R10
	MOVQ groups+32(FP), CX
	MOVQ n+40(FP), R11
	LEAQ ·encConst(SB), R8
	CONSTANTS
	LIMITS(low+48(FP), high+52(FP))
group:
	MOVL (R9), AX
	ADDL AX, AX
	JEQ  skip
	VBROADCASTSS (R9), V2
	VBROADCASTSS (R10), V3
	MOVQ R11, AX
values:
	BYTES16(DIVIDED)
	ADDQ $64, SI
	ADDQ $16, DI
	SUBQ $16, AX
	JG   values
	JMP  next
skip:
	ADDQ R11, DI
	LEAQ (SI)(R11*4), SI
next:
	ADDQ $4, R9
	ADDQ $4, R10
	DECQ CX
	JNE  group
	VZEROUPPER
	RET

#define SCALED(v) \
	VSUBPS V3, v, v \
	VMULPS V2, v, v

// func roundcodes(codes *byte, x, iscales, ranges *float32, groups, n int, low, high float32):
// for each group of n values, a multiple of 16, the codes, from 0 on, of iscale*(x - range).
TEXT FN_roundcodes(SB), NOSPLIT, $0-56
	MOVQ codes+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ iscales+16(FP), R9
	MOVQ ranges+24(FP), R10
	MOVQ groups+32(FP), CX
	MOVQ n+40(FP), R11
	LEAQ ·encConst(SB), R8
	CONSTANTS
	LIMITS(low+48(FP), high+52(FP))
group:
	VBROADCASTSS (R9), V2
	VBROADCASTSS (R10), V3
	MOVQ R11, AX
values:
	BYTES16(SCALED)
	ADDQ $64, SI
	ADDQ $16, DI
	SUBQ $16, AX
	JG   values
	ADDQ $4, R9
	ADDQ $4, R10
	DECQ CX
	JNE  group
	VZEROUPPER
	RET
