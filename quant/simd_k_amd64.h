// The vector decoders of the types with super-blocks of 256, included after
// simd_amd64.h. Their scales are multiplied out on the stack first.

// PUT32: 32 codes of y (whose lower half is x), minus a minimum, under the j-th scale
// and minimum on the stack. Clobbers x, X15, V0 to V3.
#define PUT32(y, x, j, off) \
	VBROADCASTSS scales-64+(4*(j))(SP), V2 \
	VBROADCASTSS mins-32+(4*(j))(SP), V3 \
	VEXTRACTI128 $1, y, X15            \
	PUTSUB(x, V2, V3, off)             \
	PUTSUB(X15, V2, V3, off+64)

// SCALES4K puts the eight scales and eight minimums of a Q4_K or Q5_K block on the
// stack, multiplied out: six bits each in twelve bytes, the first four of either
// with their own low six bits, the others with a nibble and the two bits that the first leave.
#define SCALES4K \
	VPBROADCASTW (SI), X7        \
	VCVTPH2PS    X7, Y2          \
	VPBROADCASTW 2(SI), X7       \
	VCVTPH2PS    X7, Y3          \
	VMOVQ        4(SI), X4       \
	VPBROADCASTD 12(SI), X5      \
	VPSRLVD      SHIFT04, X5, X5 \
	VPAND        NIBBLE, X5, X5  \
	VPSRLW       $2, X4, X6      \
	VPAND        B48, X6, X6     \
	VPOR         X6, X5, X5      \
	VPAND        B63, X4, X4     \
	VPUNPCKLDQ   X5, X4, X4      \
	VPMOVZXBD    X4, Y5          \
	VPSRLDQ      $8, X4, X4      \
	VPMOVZXBD    X4, Y6          \
	VCVTDQ2PS    Y5, Y5          \
	VCVTDQ2PS    Y6, Y6          \
	VMULPS       Y5, Y2, Y5      \
	VMULPS       Y6, Y3, Y6      \
	VMOVUPS      Y5, scales-64(SP) \
	VMOVUPS      Y6, mins-32(SP)

// Q4K: 64 elements from 32 bytes.
#define Q4K(j, in, off) \
	VMOVDQU in(SI), Y8        \
	VPSRLW  $4, Y8, Y9        \
	VPAND   NIBBLE, Y8, Y8    \
	VPAND   NIBBLE, Y9, Y9    \
	PUT32(Y8, X8, j, off)     \
	PUT32(Y9, X9, j+1, off+128)

TEXT FN_q4_k(SB), 0, $64-24
	ARGS
loop:
	SCALES4K
	Q4K(0, 16, 0)
	Q4K(2, 48, 256)
	Q4K(4, 80, 512)
	Q4K(6, 112, 768)
	NEXT(144, 256, loop)

// FIFTHK: y |= 16 where Y10 has the bit of Y11, which moves on. Clobbers Y12.
#define FIFTHK(y) \
	VPAND    Y11, Y10, Y12 \
	VPCMPEQB Y11, Y12, Y12 \
	VPAND    B16, Y12, Y12 \
	VPOR     Y12, y, y     \
	VPADDB   Y11, Y11, Y11

#define Q5K(j, in, off) \
	VMOVDQU in(SI), Y8        \
	VPSRLW  $4, Y8, Y9        \
	VPAND   NIBBLE, Y8, Y8    \
	VPAND   NIBBLE, Y9, Y9    \
	FIFTHK(Y8)                \
	FIFTHK(Y9)                \
	PUT32(Y8, X8, j, off)     \
	PUT32(Y9, X9, j+1, off+128)

TEXT FN_q5_k(SB), 0, $64-24
	ARGS
loop:
	SCALES4K
	VMOVDQU 16(SI), Y10
	VMOVDQU B1, Y11
	Q5K(0, 48, 0)
	Q5K(2, 80, 256)
	Q5K(4, 112, 512)
	Q5K(6, 144, 768)
	NEXT(176, 256, loop)

// SCALES16: sixteen floats on the stack, the signed bytes of X4 times the half in Y2.
#define SCALES16 \
	VPMOVSXBD X4, Y5          \
	VPSRLDQ   $8, X4, X4      \
	VPMOVSXBD X4, Y6          \
	VCVTDQ2PS Y5, Y5          \
	VCVTDQ2PS Y6, Y6          \
	VMULPS    Y5, Y2, Y5      \
	VMULPS    Y6, Y2, Y6      \
	VMOVUPS   Y5, scales-64(SP) \
	VMOVUPS   Y6, scales-32(SP)

// PUT16S: 32 codes of y (whose lower half is x), the j-th scale for the first sixteen
// and the next for the others.
#define PUT16S(y, x, j, off) \
	VBROADCASTSS scales-64+(4*(j))(SP), V2 \
	VBROADCASTSS scales-60+(4*(j))(SP), V3 \
	VEXTRACTI128 $1, y, X15            \
	PUT(x, V2, off)                    \
	PUT(X15, V3, off+64)

// Q6K: 128 elements. Y8, Y9 have the low four bits of two rows of 32 each, Y10 the
// upper two of all four.
#define Q6K(j, low, high, off) \
	VMOVDQU low(SI), Y8       \
	VMOVDQU low+32(SI), Y9    \
	VMOVDQU high(SI), Y10     \
	VPAND   NIBBLE, Y8, Y11   \
	VPSLLW  $4, Y10, Y12      \
	VPAND   B48, Y12, Y12     \
	VPOR    Y12, Y11, Y11     \
	VPSUBB  B32, Y11, Y11     \
	PUT16S(Y11, X11, j, off)  \
	VPAND   NIBBLE, Y9, Y11   \
	VPSLLW  $2, Y10, Y12      \
	VPAND   B48, Y12, Y12     \
	VPOR    Y12, Y11, Y11     \
	VPSUBB  B32, Y11, Y11     \
	PUT16S(Y11, X11, j+2, off+128) \
	VPSRLW  $4, Y8, Y11       \
	VPAND   NIBBLE, Y11, Y11  \
	VPAND   B48, Y10, Y12     \
	VPOR    Y12, Y11, Y11     \
	VPSUBB  B32, Y11, Y11     \
	PUT16S(Y11, X11, j+4, off+256) \
	VPSRLW  $4, Y9, Y11       \
	VPAND   NIBBLE, Y11, Y11  \
	VPSRLW  $2, Y10, Y12      \
	VPAND   B48, Y12, Y12     \
	VPOR    Y12, Y11, Y11     \
	VPSUBB  B32, Y11, Y11     \
	PUT16S(Y11, X11, j+6, off+384)

TEXT FN_q6_k(SB), 0, $64-24
	ARGS
loop:
	VPBROADCASTW 208(SI), X7
	VCVTPH2PS    X7, Y2
	VMOVDQU      192(SI), X4
	SCALES16
	Q6K(0, 0, 128, 0)
	Q6K(8, 64, 160, 512)
	NEXT(210, 256, loop)

// Q3K: 32 elements, two bits each from Y8 and a third from Y10 at the bit of Y11,
// which moves on.
#define Q3K(shift, j, off) \
	VPSRLW   $shift, Y8, Y9  \
	VPAND    B3, Y9, Y9      \
	VPAND    Y11, Y10, Y12   \
	VPCMPEQB Y11, Y12, Y12   \
	VPADDB   Y11, Y11, Y11   \
	VPAND    B4, Y12, Y12    \
	VPOR     Y12, Y9, Y9     \
	VPSUBB   B4, Y9, Y9      \
	PUT16S(Y9, X9, j, off)

TEXT FN_q3_k(SB), 0, $64-24
	ARGS
loop:
	VPBROADCASTW 108(SI), X7
	VCVTPH2PS    X7, Y2

	// Sixteen scales of six bits: nibbles of eight bytes, then two bits of four.
	VMOVQ        96(SI), X4
	VPSRLW       $4, X4, X5
	VPUNPCKLQDQ  X5, X4, X4
	VPAND        NIBBLE, X4, X4
	VPBROADCASTD 104(SI), X5
	VPSRLVD      SHIFT2, X5, X5
	VPAND        B3, X5, X5
	VPSLLW       $4, X5, X5
	VPOR         X5, X4, X4
	VPSUBB       B32, X4, X4
	SCALES16

	VMOVDQU (SI), Y10
	VMOVDQU B1, Y11
	VMOVDQU 32(SI), Y8
	Q3K(0, 0, 0)
	Q3K(2, 2, 128)
	Q3K(4, 4, 256)
	Q3K(6, 6, 384)
	VMOVDQU 64(SI), Y8
	Q3K(0, 8, 512)
	Q3K(2, 10, 640)
	Q3K(4, 12, 768)
	Q3K(6, 14, 896)
	NEXT(110, 256, loop)

// Q2K: 32 elements, sixteen each with their scale and minimum.
#define Q2K(shift, j, off) \
	VPSRLW       $shift, Y8, Y9           \
	VPAND        B3, Y9, Y9               \
	VBROADCASTSS scales-128+(4*(j))(SP), V2 \
	VBROADCASTSS scales-124+(4*(j))(SP), V3 \
	VBROADCASTSS mins-64+(4*(j))(SP), V4    \
	VBROADCASTSS mins-60+(4*(j))(SP), V5    \
	VEXTRACTI128 $1, Y9, X15              \
	PUTSUB(X9, V2, V4, off)               \
	PUTSUB(X15, V3, V5, off+64)

TEXT FN_q2_k(SB), 0, $128-24
	ARGS
loop:
	VPBROADCASTW 80(SI), X7
	VCVTPH2PS    X7, Y2
	VPBROADCASTW 82(SI), X7
	VCVTPH2PS    X7, Y3
	VMOVDQU      (SI), X4
	VPSRLW       $4, X4, X5
	VPAND        NIBBLE, X4, X4
	VPAND        NIBBLE, X5, X5
	VPMOVZXBD    X4, Y8
	VPSRLDQ      $8, X4, X4
	VPMOVZXBD    X4, Y9
	VPMOVZXBD    X5, Y10
	VPSRLDQ      $8, X5, X5
	VPMOVZXBD    X5, Y11
	VCVTDQ2PS    Y8, Y8
	VCVTDQ2PS    Y9, Y9
	VCVTDQ2PS    Y10, Y10
	VCVTDQ2PS    Y11, Y11
	VMULPS       Y8, Y2, Y8
	VMULPS       Y9, Y2, Y9
	VMULPS       Y10, Y3, Y10
	VMULPS       Y11, Y3, Y11
	VMOVUPS      Y8, scales-128(SP)
	VMOVUPS      Y9, scales-96(SP)
	VMOVUPS      Y10, mins-64(SP)
	VMOVUPS      Y11, mins-32(SP)

	VMOVDQU 16(SI), Y8
	Q2K(0, 0, 0)
	Q2K(2, 2, 128)
	Q2K(4, 4, 256)
	Q2K(6, 6, 384)
	VMOVDQU 48(SI), Y8
	Q2K(0, 8, 512)
	Q2K(2, 10, 640)
	Q2K(4, 12, 768)
	Q2K(6, 14, 896)
	NEXT(84, 256, loop)

// IQ4XS: 32 elements under the j-th scale on the stack.
#define IQ4XS(in, j, off) \
	NIBBLES(in)                            \
	VPSHUFB      Y8, Y14, Y8               \
	VBROADCASTSS scales-32+(4*(j))(SP), V2   \
	VEXTRACTI128 $1, Y8, X9                \
	PUT(X8, V2, off)                       \
	PUT(X9, V2, off+64)

TEXT FN_iq4_xs(SB), 0, $32-24
	ARGS
	VMOVDQU LEVELS, Y14
loop:
	VPBROADCASTW (SI), X7
	VCVTPH2PS    X7, Y2

	// Eight scales of six bits: nibbles of four bytes, then two bits each of two.
	VPBROADCASTD 4(SI), Y4
	VPSRLVD      EIGHT4, Y4, Y4
	VPAND        WORD15, Y4, Y4
	VPBROADCASTW 2(SI), Y5
	VPSRLVD      EIGHT2, Y5, Y5
	VPAND        WORD3, Y5, Y5
	VPSLLD       $4, Y5, Y5
	VPOR         Y5, Y4, Y4
	VPSUBD       WORD32, Y4, Y4
	VCVTDQ2PS    Y4, Y4
	VMULPS       Y4, Y2, Y4
	VMOVUPS      Y4, scales-32(SP)
	IQ4XS(8, 0, 0)
	IQ4XS(24, 1, 128)
	IQ4XS(40, 2, 256)
	IQ4XS(56, 3, 384)
	IQ4XS(72, 4, 512)
	IQ4XS(88, 5, 640)
	IQ4XS(104, 6, 768)
	IQ4XS(120, 7, 896)
	NEXT(136, 256, loop)
