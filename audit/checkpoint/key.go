package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// ErrBadKey is wrapped by the errors about keys that can't be used. They quote nothing of a key.
var ErrBadKey = errors.New("not a key for audit checkpoints")

// KeyID names a public key: the first 16 bytes of its SHA-256, as hexadecimal digits.
type KeyID string

// IDOf returns the name of a public key.
func IDOf(public ed25519.PublicKey) KeyID {
	sum := sha256.Sum256(public)
	return KeyID(hex.EncodeToString(sum[:16]))
}

// Key signs checkpoints. Immutable.
type Key struct {
	private  ed25519.PrivateKey
	handover []byte // public key and the signature of the key before; nil: it follows none
}

const (
	blockPrivate  = "PRIVATE KEY"
	blockPublic   = "PUBLIC KEY"
	blockHandover = "MAILCUTOVER AUDIT KEY HANDOVER"

	// handoverText is what stands before the new public key in what the old one signs, so that
	// no signature for one purpose is one for another.
	handoverText = "mailcutover audit key handover\n"
)

// NewKey makes a key; before, unless nil, signs that it follows it.
func NewKey(before *Key) (*Key, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key for audit checkpoints: %w", err)
	}
	k := &Key{private: private}
	if before != nil {
		k.handover = append(bytes.Clone(public), ed25519.Sign(before.private, append([]byte(handoverText), public...))...)
	}
	return k, nil
}

// Public returns the public key.
func (k *Key) Public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// ID returns the name of the public key.
func (k *Key) ID() KeyID { return IDOf(k.Public()) }

// Follows reports whether the key carries the word of one before it.
func (k *Key) Follows() bool { return k.handover != nil }

// PEM returns the key as a file: PKCS #8, and behind it the word of the key before.
func (k *Key) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("write a key for audit checkpoints: %w", err)
	}
	out := pem.EncodeToMemory(&pem.Block{Type: blockPrivate, Bytes: der})
	if k.handover != nil {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: blockHandover, Bytes: k.handover})...)
	}
	return out, nil
}

// PublicPEM returns the public key as a file (SubjectPublicKeyInfo, RFC 8410).
func (k *Key) PublicPEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return nil, fmt.Errorf("write a public key for audit checkpoints: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockPublic, Bytes: der}), nil
}

// ParseKey reads what [Key.PEM] wrote, or any Ed25519 key in PKCS #8. Errors wrap [ErrBadKey].
func ParseKey(text []byte) (*Key, error) {
	k := new(Key)
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == blockPrivate && k.private == nil:
			parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			private, ok := parsed.(ed25519.PrivateKey)
			if err != nil || !ok {
				return nil, fmt.Errorf("%w: want an Ed25519 key in PKCS #8", ErrBadKey)
			}
			k.private = private
		case block.Type == blockHandover && k.handover == nil:
			k.handover = block.Bytes
		default:
			return nil, fmt.Errorf("%w: it has a block %q: want one %q, and perhaps one %q behind it", ErrBadKey, block.Type, blockPrivate, blockHandover)
		}
	}
	if k.private == nil {
		return nil, fmt.Errorf("%w: want a PEM block %q", ErrBadKey, blockPrivate)
	}
	if k.handover != nil && (len(k.handover) != ed25519.PublicKeySize+ed25519.SignatureSize || !bytes.Equal(k.handover[:ed25519.PublicKeySize], k.Public())) {
		return nil, fmt.Errorf("%w: the block %q is of another key", ErrBadKey, blockHandover)
	}
	return k, nil
}

// ReadKey reads a file as [ParseKey] does.
func ReadKey(path string) (*Key, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the key for audit checkpoints: %w", err)
	}
	k, err := ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// ParsePublic reads one or several public keys in PEM. Errors wrap [ErrBadKey].
func ParsePublic(text []byte) ([]ed25519.PublicKey, error) {
	var all []ed25519.PublicKey
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != blockPublic {
			return nil, fmt.Errorf("%w: it has a block %q: want %q, which is in the file that ends in .pub", ErrBadKey, block.Type, blockPublic)
		}
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		public, ok := parsed.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, fmt.Errorf("%w: want an Ed25519 public key", ErrBadKey)
		}
		all = append(all, public)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: want a PEM block %q", ErrBadKey, blockPublic)
	}
	return all, nil
}

// handed returns the public key that a handover is for, if one of the trusted keys signed it. The
// word of one that another has followed counts no more: whoever finds an old key would go on with
// one of their own.
func handed(handover []byte, trusted map[KeyID]ed25519.PublicKey, retired map[KeyID]bool) (ed25519.PublicKey, KeyID, bool) {
	if len(handover) != ed25519.PublicKeySize+ed25519.SignatureSize {
		return nil, "", false
	}
	next, signature := ed25519.PublicKey(handover[:ed25519.PublicKeySize]), handover[ed25519.PublicKeySize:]
	for id, public := range trusted {
		if !retired[id] && ed25519.Verify(public, append([]byte(handoverText), next...), signature) {
			return next, id, true
		}
	}
	return nil, "", false
}

// base64Text is how bytes stand in a checkpoint: one spelling only.
var base64Text = base64.RawURLEncoding.Strict()
