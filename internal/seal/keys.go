package seal

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
)

var (
	// ErrUnknownKey is wrapped where a stream was sealed with a key that isn't among Keys.
	ErrUnknownKey = errors.New("unknown key")
	// ErrBadKeys is wrapped where the text of keys can't be used.
	ErrBadKeys = errors.New("bad keys")
)

// KeyBytes is the length of a key.
const KeyBytes = 32

// nameBytes is the longest name of a key.
const nameBytes = 16

// Keys are the operator's keys. The zero value has none; see [ParseKeys].
type Keys struct{ all []key }

type key struct {
	name   string
	secret []byte
}

// ReadKeys reads a file of keys, as [ParseKeys] has it. Errors never quote a key.
func ReadKeys(path string) (*Keys, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	k, err := ParseKeys(string(b))
	if err != nil {
		return nil, fmt.Errorf("read keys %s: %w", path, err)
	}
	return k, nil
}

// ParseKeys returns the keys of a text: a key in each line, its name (1 to 16 characters of
// a-z, 0-9 and hyphen), a space, and 32 bytes in base64. The first one seals, all open. Empty
// lines and those that begin with # count for nothing. The error wraps [ErrBadKeys].
func ParseKeys(text string) (*Keys, error) {
	k := new(Keys)
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, encoded, _ := strings.Cut(line, " ")
		if !isName(name) {
			return nil, fmt.Errorf("%w: line %d: want a name of 1 to %d characters of a-z, 0-9 and hyphen, a space, and the key", ErrBadKeys, n, nameBytes)
		}
		secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
		if err != nil || len(secret) != KeyBytes {
			return nil, fmt.Errorf("%w: line %d: key %s: want %d bytes in base64", ErrBadKeys, n, name, KeyBytes)
		}
		if _, ok := k.find(name); ok {
			return nil, fmt.Errorf("%w: line %d: key %s is there twice", ErrBadKeys, n, name)
		}
		k.all = append(k.all, key{name, secret})
	}
	if len(k.all) == 0 {
		return nil, fmt.Errorf("%w: there is none", ErrBadKeys)
	}
	return k, nil
}

// NewKey returns a line for a file of keys, with a fresh key of this name. It panics if the
// system has no randomness left, or if the name isn't one.
func NewKey(name string) string {
	if !isName(name) {
		panic(fmt.Sprintf("seal: key name %q", name))
	}
	return name + " " + base64.StdEncoding.EncodeToString(random(KeyBytes))
}

func isName(s string) bool {
	return s != "" && len(s) <= nameBytes && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, by its documentation
	return b
}

// Current returns the name of the key that seals.
func (k *Keys) Current() string { return k.all[0].name }

// Names returns the names of all keys; the one that seals is the first.
func (k *Keys) Names() []string {
	var names []string
	for i := range k.all {
		names = append(names, k.all[i].name)
	}
	return names
}

func (k *Keys) find(name string) (key, bool) {
	for _, one := range k.all {
		if one.name == name {
			return one, true
		}
	}
	return key{}, false
}

// NewSecret returns a fresh key for [Derive].
func NewSecret() []byte { return random(KeyBytes) }

// Salt returns n random bytes for [Derive].
func Salt(n int) []byte { return random(n) }

// Derive returns AES-256-GCM under a key of its own, which follows from a secret of
// [KeyBytes], a salt that no other use of the secret has, and a context. Its nonces are the
// caller's: he never uses one twice.
func Derive(secret, salt []byte, context string) (cipher.AEAD, error) {
	k, err := hkdf.Key(sha256.New, secret, salt, "mailcutover "+context, KeyBytes)
	if err != nil {
		return nil, fmt.Errorf("derive key for %s: %w", context, err)
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, fmt.Errorf("derive key for %s: %w", context, err)
	}
	return cipher.NewGCM(block)
}
