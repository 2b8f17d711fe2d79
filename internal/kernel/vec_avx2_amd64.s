//go:build !noasm

#include "textflag.h"

#define VB 32
#define V0 Y0
#define V1 Y1
#define V2 Y2
#define V3 Y3
#define V4 Y4
#define V5 Y5
#define V6 Y6
#define V7 Y7
#define V8 Y8
#define V9 Y9
#define V10 Y10
#define V11 Y11
#define V12 Y12
#define V13 Y13
#define V14 Y14
#define V15 Y15
#define H1 X1
#define VPORD_ VPOR
#define VPANDD_ VPAND

#define FN_dot ·dotAVX2
#define FN_dot3 ·dot3AVX2
#define FN_sum ·sumAVX2
#define FN_max ·maxAVX2
#define FN_sumSquares64 ·sumSquares64AVX2
#define FN_dot64 ·dot64AVX2
#define FN_add ·addAVX2
#define FN_sub ·subAVX2
#define FN_mul ·mulAVX2
#define FN_scale ·scaleAVX2
#define FN_axpy ·axpyAVX2
#define FN_exp ·expAVX2
#define FN_sigmoid ·sigmoidAVX2
#define FN_softcap ·softcapAVX2
#define FN_softcapBackward ·softcapBackwardAVX2
#define FN_softmaxBackward ·softmaxBackwardAVX2
#define FN_norm ·normAVX2
#define FN_normBackward ·normBackwardAVX2
#define FN_siluMul ·siluMulAVX2
#define FN_siluMulBackward ·siluMulBackwardAVX2
#define FN_geluMul ·geluMulAVX2
#define FN_geluMulBackward ·geluMulBackwardAVX2
#define FN_ropeHalves ·ropeHalvesAVX2
#define FN_ropePairs ·ropePairsAVX2
#define FN_f16ToF32 ·f16ToF32AVX2
#define FN_f32ToF16 ·f32ToF16AVX2
#define FN_bf16ToF32 ·bf16ToF32AVX2
#define FN_f32ToBF16 ·f32ToBF16AVX2
#define FN_mulAdd ·mulAddAVX2
#define FN_dotColumns ·dotColumnsAVX2
#define FN_axpyColumns ·axpyColumnsAVX2
#define FN_productColumns ·productColumnsAVX2
#define FN_rangeColumns ·rangeColumnsAVX2
#define FN_mixRows ·mixRowsAVX2
#define FN_squareColumns ·squareColumnsAVX2
#define FN_outside ·outsideAVX2
#define FN_adamW ·adamWAVX2

#include "vec_amd64.h"
#include "vec_exp_amd64.h"
#include "columns_amd64.h"
