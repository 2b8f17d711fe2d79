package signing

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Media and payload types of the formats.
const (
	bundleType    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	payloadType   = "application/vnd.in-toto+json"
	StatementType = "https://in-toto.io/Statement/v1"
)

// Statement is an in-toto statement: something said (Predicate) of some files (Subject).
type Statement struct {
	Type          string          `json:"_type"` // [StatementType]
	Subject       []Subject       `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

// Subject is a thing that a statement is about.
type Subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"` // by algorithm, in hexadecimal
}

// Bundle is a signed statement as Sigstore bundles have it.
type Bundle struct {
	MediaType            string       `json:"mediaType"`
	VerificationMaterial material     `json:"verificationMaterial"`
	Envelope             dsseEnvelope `json:"dsseEnvelope"`
}

type material struct {
	PublicKey *keyHint `json:"publicKey,omitempty"`
	// Certificates and log entries are other ways of signing. They are kept apart only
	// to say so.
	Certificate json.RawMessage   `json:"certificate,omitempty"`
	Chain       json.RawMessage   `json:"x509CertificateChain,omitempty"`
	Log         []json.RawMessage `json:"tlogEntries"`
}

type keyHint struct {
	Hint string `json:"hint"` // [PublicKey.ID]
}

type dsseEnvelope struct {
	Payload     []byte          `json:"payload"` // base64 in JSON
	PayloadType string          `json:"payloadType"`
	Signatures  []dsseSignature `json:"signatures"`
}

type dsseSignature struct {
	Sig   []byte `json:"sig"`
	KeyID string `json:"keyid"`
}

// ErrSignature says that a signature is not what it should be.
var ErrSignature = errors.New("the signature does not hold")

// preAuth is what is signed (DSSE's PAE).
func preAuth(payload []byte) []byte {
	return append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload)), payload...)
}

// Sign signs a statement. Ed25519 signatures are functions of key and statement, those
// of ECDSA are not.
func Sign(s *Statement, key *PrivateKey) (*Bundle, error) {
	payload, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	sig, err := key.sign(preAuth(payload))
	if err != nil {
		return nil, err
	}
	return &Bundle{
		MediaType:            bundleType,
		VerificationMaterial: material{PublicKey: &keyHint{key.Public().ID()}, Log: []json.RawMessage{}},
		Envelope:             dsseEnvelope{Payload: payload, PayloadType: payloadType, Signatures: []dsseSignature{{Sig: sig}}},
	}, nil
}

// JSON is the bundle as a file has it.
func (b *Bundle) JSON() ([]byte, error) {
	out, err := json.Marshal(b)
	return append(out, '\n'), err
}

// ParseBundle reads a bundle; nothing of it is verified yet.
func ParseBundle(data []byte) (*Bundle, error) {
	var b Bundle
	if err := json.Unmarshal(data, &b); err != nil {
		return nil, fmt.Errorf("not a signature bundle: %w", err)
	}
	switch {
	case b.MediaType != bundleType:
		return nil, fmt.Errorf("media type %q, not %s", b.MediaType, bundleType)
	case b.Envelope.PayloadType != payloadType:
		return nil, fmt.Errorf("payload type %q, not %s", b.Envelope.PayloadType, payloadType)
	case len(b.Envelope.Signatures) != 1:
		return nil, fmt.Errorf("%d signatures, where one is wanted", len(b.Envelope.Signatures))
	case b.VerificationMaterial.PublicKey == nil:
		return nil, errors.New("it is signed by certificate: graft verifies signatures by a key")
	}
	return &b, nil
}

// KeyID is the [PublicKey.ID] of the key that the bundle says to be signed with, "" if it
// does not say.
func (b *Bundle) KeyID() string { return b.VerificationMaterial.PublicKey.Hint }

// Verify gives the statement if it was signed by one of keys, and that key. The error is
// [ErrSignature] if it was not.
func (b *Bundle) Verify(keys ...*PublicKey) (*Statement, *PublicKey, error) {
	message := preAuth(b.Envelope.Payload)
	for _, k := range keys {
		if hint := b.KeyID(); hint != "" && hint != k.ID() || !k.verifies(message, b.Envelope.Signatures[0].Sig) {
			continue
		}
		s, err := b.Statement()
		return s, k, err
	}
	var ids []string
	for _, k := range keys {
		ids = append(ids, k.ID()[:16])
	}
	return nil, nil, fmt.Errorf("%w: it names the key %.16s, and these are %s", ErrSignature, b.KeyID(), strings.Join(ids, ", "))
}

// Statement is what the bundle says, whether or not its signature holds.
func (b *Bundle) Statement() (*Statement, error) { return ParseStatement(b.Envelope.Payload) }

// JSON is the statement as a file has it that is not signed.
func (s *Statement) JSON() ([]byte, error) {
	out, err := json.MarshalIndent(s, "", "  ")
	return append(out, '\n'), err
}

// ParseStatement reads a statement that is not signed.
func ParseStatement(data []byte) (*Statement, error) {
	var s Statement
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("not an in-toto statement: %w", err)
	}
	if s.Type != StatementType {
		return nil, fmt.Errorf("a statement of type %q, not %s", s.Type, StatementType)
	}
	return &s, nil
}
