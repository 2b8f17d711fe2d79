//go:build !noasm

#include "textflag.h"

#define V0 Y0
#define V1 Y1
#define V2 Y2
#define V3 Y3
#define V4 Y4
#define V5 Y5
#define V6 Y6
#define V7 Y7

#define FN_q4_0 ·decodeQ4_0_AVX2
#define FN_q4_1 ·decodeQ4_1_AVX2
#define FN_q5_0 ·decodeQ5_0_AVX2
#define FN_q5_1 ·decodeQ5_1_AVX2
#define FN_q8_0 ·decodeQ8_0_AVX2
#define FN_iq4_nl ·decodeIQ4NLAVX2
#define FN_mxfp4 ·decodeMXFP4_AVX2
#define FN_q2_k ·decodeQ2KAVX2
#define FN_q3_k ·decodeQ3KAVX2
#define FN_q4_k ·decodeQ4KAVX2
#define FN_q5_k ·decodeQ5KAVX2
#define FN_q6_k ·decodeQ6KAVX2
#define FN_iq4_xs ·decodeIQ4XSAVX2
#define FN_lookup ·lookupAVX2
#define FN_int8 ·decodeINT8AVX2

#include "simd_amd64.h"
#include "simd_k_amd64.h"
