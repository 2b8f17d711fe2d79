// Package signing says who vouches for a file, and checks it: manifests of files in
// the form of OpenSSF Model Signing v1.0, in-toto statements, DSSE envelopes and
// Sigstore bundles with a plain key (no certificates, no transparency log).
//
//	key, err := signing.LoadPrivateKey("me.pem")
//	m, err := signing.HashPath("merged.gguf", signing.HashOptions{})
//	bundle, err := signing.Sign(m.Statement(), key)
//
// What it writes the model-signing package of OpenSSF reads, and the other way round,
// for ECDSA keys. Ed25519 (RFC 8032) has the same bundle; that package does not read it.
//
// Sources: the DSSE protocol v1.0.0, the in-toto Statement v1, the Sigstore bundle
// v0.3, and the OpenSSF Model Signing specification v1.0.
//
// Everything here is safe for concurrent use as long as nothing is changed.
package signing
