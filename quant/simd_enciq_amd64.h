// The searches of the IQ types, included after simd_encpos_amd64.h.

// Midpoints between the levels of IQ4, and the levels, in the order of encConst; a
// table of eight stands twice.
#define MID7  512(R8)  // between the levels 7 and 8
#define MID3  576(R8)
#define MID11 640(R8)
#define MID1  704(R8)  // 1, 5, 9 and 13
#define MID0  768(R8)  // 0, 2, 4, … 14
#define EVEN  832(R8)  // the levels 0, 2, 4, … 14
#define ODD   896(R8)  // the others
#define UNIT  960(R8)  // words of 1
#define LEVEL0 1024(R8) // the lowest level

#ifdef WIDE
// BITOF: index = m; BIT: index = 2*index + m.
#define BITOF(m, index) VMOVDQU32.Z UNIT, m, index
#define BIT(m, index) \
	VPADDD index, index, index \
	VPADDD UNIT, index, m, index
#else
#define BITOF(m, index) VPSRLD $31, m, index
#define BIT(m, index) \
	VPADDD index, index, index \
	VPSUBD m, index, index
#endif

// IQ4HALF: index = half the code of v, M1 = whether it is odd. A level is taken from the
// midpoint below it on: between two levels the differences that iq4Index compares
// are exact where they are close. A NaN is above all. Clobbers t.
#define IQ4HALF(v, index, t) \
	VCMPPS  $5, MID7, v, M1 \
	BITOF(M1, index)        \
	VMOVUPS MID3, t         \
	PICK4(M1, t)            \
	VCMPPS  $5, t, v, M1    \
	BIT(M1, index)          \
	VPERMPS MID1, index, t  \
	VCMPPS  $5, t, v, M1    \
	BIT(M1, index)          \
	VPERMPS MID0, index, t  \
	VCMPPS  $5, t, v, M1

#ifdef WIDE
#define PICK4(m, t) VMOVUPS MID11, m, t
#else
#define PICK4(m, t) VBLENDVPS m, MID11, t, t
#endif

// FIT4: V3, V4 = the sums of w*level*x and w*level*level, levels those of V2*x.
// Clobbers V9 to V13.
#define FIT4(loop) \
	VXORPS  V3, V3, V3       \
	VXORPS  V4, V4, V4       \
	XORQ    R11, R11         \
loop:                       \
	VMOVUPS (SI)(R11*1), V9  \
	VMULPS  V9, V2, V10      \
	IQ4HALF(V10, V11, V12)   \
	VPERMPS EVEN, V11, V12   \
	VPERMPS ODD, V11, V13    \
	PICK(M1, V13, V12)       \
	VMULPS  (DX)(R11*1), V12, V10 \
	VMULPS  V10, V9, V9      \
	VADDPS  V9, V3, V3       \
	VMULPS  V10, V12, V10    \
	VADDPS  V10, V4, V4      \
	ADDQ    $64, R11         \
	CMPQ    R11, CX          \
	JLT     loop

// func searchIQ4(x, w, codes, state *float32, n int, tries *float32, count int, low, high float32):
// searchIQ4; each of tries is what is divided by the largest value, but the first is
// not looked at. SCALE is the result.
TEXT FN_searchiq4(SB), NOSPLIT, $0-64
	GROUPS
	TRIES
	EXTREME(extreme)
	VMOVUPS V1, HIGH
	VXORPS  V6, V6, V6
	VMOVUPS V6, SCALE
	KEEP(M1)
	ANY(M1)
	TESTQ   AX, AX
	JEQ     out
	VSUBPS  V1, V6, V1 // the sign of a zero is of no matter: its lane is not stored
	VDIVPS  LEVEL0, V1, V1
	VMOVUPS ONE, V2
	VDIVPS  V1, V2, V2
	FIT4(first)
	VDIVPS  V4, V3, V9
	VXORPS  V10, V10, V10
	AGAIN(M1)
	ANDLESS(V6, V4, M1)
	PICK(M1, V9, V10)
	VMOVUPS V10, SCALE
	VMULPS  V3, V10, V9
	VMOVUPS V9, BEST
try:
	ADDQ    $4, R9
	DECQ    R10
	JEQ     out
	VMOVUPS HIGH, V1
	VBROADCASTSS (R9), V2
	VDIVPS  V1, V2, V2
	FIT4(fit)
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
	JMP     try
out:
	VZEROUPPER
	RET

// func codesIQ4(codes *byte, x, scales, mins *float32, groups, n int, low, high float32): for each
// group of n values, a multiple of 16, the codes of scale*x. The other arguments are not looked at.
TEXT FN_codesiq4(SB), NOSPLIT, $0-56
	MOVQ codes+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ scales+16(FP), R9
	MOVQ groups+32(FP), CX
	MOVQ n+40(FP), R11
	LEAQ ·encConst(SB), R8
group:
	VBROADCASTSS (R9), V2
	MOVQ R11, AX
values:
	VMULPS (SI), V2, V0
	IQ4HALF(V0, V3, V4)
	BIT(M1, V3)
#ifdef WIDE
	VPMOVDB Z3, (DI)
#else
	VMULPS 32(SI), V2, V0
	IQ4HALF(V0, V5, V4)
	BIT(M1, V5)
	VPACKSSDW  Y5, Y3, Y0
	VPERMQ     $0xd8, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPACKUSWB  X1, X0, X0
	VMOVDQU    X0, (DI)
#endif
	ADDQ $64, SI
	ADDQ $16, DI
	SUBQ $16, AX
	JG   values
	ADDQ $4, R9
	DECQ CX
	JNE  group
	VZEROUPPER
	RET
