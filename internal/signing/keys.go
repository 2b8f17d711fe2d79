package signing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// PrivateKey signs. It is an Ed25519 key, or an ECDSA key on P-256, P-384 or P-521.
type PrivateKey struct {
	signer crypto.Signer
	public *PublicKey
}

// PublicKey verifies.
type PublicKey struct {
	key crypto.PublicKey
	pem []byte
}

// Kinds are the kinds of keys that [GenerateKey] makes.
func Kinds() []string { return []string{"ed25519", "p256"} }

// GenerateKey makes a new key of one of [Kinds], from the system's randomness.
func GenerateKey(kind string) (*PrivateKey, error) {
	switch kind {
	case "ed25519":
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return newPrivateKey(k)
	case "p256":
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		return newPrivateKey(k)
	}
	return nil, fmt.Errorf("no kind of key is called %q: %s", kind, strings.Join(Kinds(), ", "))
}

func newPrivateKey(k any) (*PrivateKey, error) {
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", k)
	}
	p, err := newPublicKey(s.Public())
	if err != nil {
		return nil, err
	}
	return &PrivateKey{s, p}, nil
}

func newPublicKey(k crypto.PublicKey) (*PublicKey, error) {
	switch k := k.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if !slices.Contains([]elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}, k.Curve) {
			return nil, fmt.Errorf("ECDSA on %s: P-256, P-384 and P-521 are known", k.Curve.Params().Name)
		}
	default:
		return nil, fmt.Errorf("a key of type %T: Ed25519 and ECDSA are known", k)
	}
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return nil, err
	}
	return &PublicKey{k, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}, nil
}

// Public is the key that verifies what k signs.
func (k *PrivateKey) Public() *PublicKey { return k.public }

// PEM is the key as PKCS #8.
func (k *PrivateKey) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// PEM is the key as SubjectPublicKeyInfo.
func (p *PublicKey) PEM() []byte { return slices.Clone(p.pem) }

// ID names the key: the SHA-256 of its PEM in hexadecimal, as bundles have it as a hint.
func (p *PublicKey) ID() string {
	s := sha256.Sum256(p.pem)
	return hex.EncodeToString(s[:])
}

// LoadPrivateKey reads a PEM file with a key as PKCS #8 or SEC 1 ("EC PRIVATE KEY").
// Encrypted keys are refused.
func LoadPrivateKey(path string) (*PrivateKey, error) {
	return load(path, func(b *pem.Block) (*PrivateKey, error) {
		switch b.Type {
		case "PRIVATE KEY":
			k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
			if err != nil {
				return nil, err
			}
			return newPrivateKey(k)
		case "EC PRIVATE KEY":
			if b.Headers["DEK-Info"] != "" {
				return nil, errors.New("the key is encrypted: openssl pkey -in FILE -out PLAIN decrypts it")
			}
			k, err := x509.ParseECPrivateKey(b.Bytes)
			if err != nil {
				return nil, err
			}
			return newPrivateKey(k)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("the key is encrypted: openssl pkey -in FILE -out PLAIN decrypts it")
		}
		return nil, nil
	})
}

// LoadPublicKey reads a PEM file with a public key as SubjectPublicKeyInfo.
func LoadPublicKey(path string) (*PublicKey, error) {
	return load(path, func(b *pem.Block) (*PublicKey, error) {
		if b.Type != "PUBLIC KEY" {
			return nil, nil
		}
		k, err := x509.ParsePKIXPublicKey(b.Bytes)
		if err != nil {
			return nil, err
		}
		return newPublicKey(k)
	})
}

// load finds the first block of a PEM file that f makes a key of. A block that f does
// not know gives no key and no error.
func load[K any](path string, f func(*pem.Block) (*K, error)) (*K, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var seen []string
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		k, err := f(block)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if k != nil {
			return k, nil
		}
		seen = append(seen, block.Type)
	}
	if len(seen) == 0 {
		return nil, fmt.Errorf("%s holds no PEM block: a key in PEM form is wanted", path)
	}
	return nil, fmt.Errorf("%s holds %s, not the key that is wanted", path, strings.Join(seen, ", "))
}

// digest is the hash that goes with an ECDSA curve.
func digest(k *ecdsa.PublicKey, message []byte) ([]byte, crypto.Hash) {
	switch k.Curve {
	case elliptic.P256():
		s := sha256.Sum256(message)
		return s[:], crypto.SHA256
	case elliptic.P384():
		s := sha512.Sum384(message)
		return s[:], crypto.SHA384
	}
	s := sha512.Sum512(message)
	return s[:], crypto.SHA512
}

// sign signs a message: Ed25519 signs it as it is, ECDSA its digest (ASN.1 form).
func (k *PrivateKey) sign(message []byte) ([]byte, error) {
	if p, ok := k.public.key.(*ecdsa.PublicKey); ok {
		d, h := digest(p, message)
		return k.signer.Sign(rand.Reader, d, h)
	}
	return k.signer.Sign(rand.Reader, message, crypto.Hash(0))
}

// verifies says whether signature is k's of message.
func (p *PublicKey) verifies(message, signature []byte) bool {
	switch k := p.key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, signature)
	case *ecdsa.PublicKey:
		d, _ := digest(k, message)
		return ecdsa.VerifyASN1(k, d, signature)
	}
	return false
}
