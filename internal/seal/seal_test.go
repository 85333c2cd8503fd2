package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

func keys(t *testing.T, names ...string) *Keys {
	t.Helper()
	var lines []string
	for _, name := range names {
		lines = append(lines, NewKey(name))
	}
	k, err := ParseKeys("# keys\n\n" + strings.Join(lines, "\n") + "\n")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sizes are those at which chunks begin and end.
var sizes = []int{0, 1, 100, chunkBytes - 1, chunkBytes, chunkBytes + 1, 2 * chunkBytes, 3*chunkBytes + 7}

func content(n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(n)})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

func TestRoundTrip(t *testing.T) {
	k := keys(t, "a", "b")
	for _, n := range sizes {
		want := content(n)
		var stream bytes.Buffer
		w := k.NewWriter(&stream, "body")
		for rest := want; len(rest) > 0; {
			part := min(len(rest), 1+rand.IntN(40_000))
			if _, err := w.Write(rest[:part]); err != nil {
				t.Fatal(err)
			}
			rest = rest[part:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		once, err := k.Seal(nil, want, "body")
		if err != nil {
			t.Fatal(err)
		}
		for _, sealed := range [][]byte{stream.Bytes(), once} {
			if int64(len(sealed)) != SealedSize(int64(n)) {
				t.Errorf("%d bytes: sealed %d, SealedSize says %d", n, len(sealed), SealedSize(int64(n)))
			}
			if got, err := PlainSize(int64(len(sealed))); err != nil || got != int64(n) {
				t.Errorf("%d bytes: PlainSize is %d, %v", n, got, err)
			}
			if n >= 100 && bytes.Contains(sealed, want[:50]) {
				t.Errorf("%d bytes: the text stands in what is sealed", n)
			}
			for name, r := range map[string]io.Reader{"whole": bytes.NewReader(sealed), "byte by byte": iotest.OneByteReader(bytes.NewReader(sealed))} {
				got, err := io.ReadAll(k.NewReader(r, "body"))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes, %s: %d bytes, %v", n, name, len(got), err)
				}
			}
		}
	}
}

// No byte of a stream can be changed, none can be missing, and no chunk can go elsewhere.
func TestDamage(t *testing.T) {
	k := keys(t, "a")
	want := content(2*chunkBytes + 500)
	sealed, err := k.Seal(nil, want, "body")
	if err != nil {
		t.Fatal(err)
	}
	open := func(b []byte, context string) error {
		got, err := io.ReadAll(k.NewReader(bytes.NewReader(b), context))
		if err == nil && !bytes.Equal(got, want) {
			return fmt.Errorf("another text without an error")
		}
		return err
	}
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnknownKey) {
			t.Errorf("%s: %v, want ErrDamaged", what, err)
		}
	}
	if err := open(sealed, "body"); err != nil {
		t.Fatal(err)
	}
	check("another context", open(sealed, "other"))
	for _, at := range []int{0, 8, 24, 39, 40, 100, HeaderBytes + chunkBytes + 3, len(sealed) - 1} {
		bad := bytes.Clone(sealed)
		bad[at] ^= 1
		check(fmt.Sprintf("byte %d", at), open(bad, "body"))
	}
	const whole = chunkBytes + tagBytes
	for _, n := range []int{0, 10, HeaderBytes, HeaderBytes + 5, HeaderBytes + whole, HeaderBytes + whole - 1, HeaderBytes + 2*whole, len(sealed) - 1} {
		check(fmt.Sprintf("cut to %d", n), open(sealed[:n], "body"))
	}
	swapped := bytes.Clone(sealed)
	copy(swapped[HeaderBytes:], sealed[HeaderBytes+whole:HeaderBytes+2*whole])
	copy(swapped[HeaderBytes+whole:], sealed[HeaderBytes:HeaderBytes+whole])
	check("swapped chunks", open(swapped, "body"))
	check("something behind", open(append(bytes.Clone(sealed), 0), "body"))
}

// A new key seals; the old one is still read, until it is taken away.
func TestRotation(t *testing.T) {
	first, second := NewKey("2026"), NewKey("2027")
	parse := func(lines ...string) *Keys {
		k, err := ParseKeys(strings.Join(lines, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	old, err := parse(first).Seal(nil, []byte("text"), "body")
	if err != nil {
		t.Fatal(err)
	}
	both := parse(second, first)
	if both.Current() != "2027" || len(both.Names()) != 2 {
		t.Errorf("the key that seals is %s of %v", both.Current(), both.Names())
	}
	if got, err := both.Open(old, "body"); err != nil || string(got) != "text" {
		t.Errorf("with both keys: %q, %v", got, err)
	}
	fresh, err := both.Seal(nil, []byte("text"), "body")
	if err != nil {
		t.Fatal(err)
	}
	if name, ok := KeyOf(fresh); !ok || name != "2027" {
		t.Errorf("sealed with %q, want 2027", name)
	}
	if _, err := parse(second).Open(old, "body"); !errors.Is(err, ErrUnknownKey) || !strings.Contains(err.Error(), "2026") {
		t.Errorf("without the old key: %v, want ErrUnknownKey with its name", err)
	}
}

func TestBadKeys(t *testing.T) {
	good := NewKey("a")
	for name, text := range map[string]string{
		"none": "# nothing\n", "twice": good + "\n" + good, "short": "a c2hvcnQ=", "no base64": "a !!", "no name": good[1:],
		"capitals": "A" + good[1:], "long name": "aaaaaaaaaaaaaaaaa" + good[1:],
	} {
		_, err := ParseKeys(text)
		if !errors.Is(err, ErrBadKeys) {
			t.Errorf("%s: %v, want ErrBadKeys", name, err)
		}
		if err != nil && strings.Contains(err.Error(), good[2:]) {
			t.Errorf("%s: the error quotes the key", name)
		}
	}
}

func TestPlainSize(t *testing.T) {
	for n := int64(0); n < SealedSize(3*chunkBytes); n += 1 + n/977 {
		plain, err := PlainSize(n)
		if (err == nil) != (err == nil && SealedSize(plain) == n) {
			t.Errorf("PlainSize(%d) is %d, whose SealedSize is %d", n, plain, SealedSize(plain))
		}
	}
	for _, n := range []int64{0, 1, int64(HeaderBytes), int64(HeaderBytes) + tagBytes - 1, SealedSize(chunkBytes) + 1, SealedSize(chunkBytes) + tagBytes} {
		if plain, err := PlainSize(n); err == nil {
			t.Errorf("PlainSize(%d) is %d, want an error", n, plain)
		}
	}
}

func FuzzReader(f *testing.F) {
	k, err := ParseKeys(NewKey("a"))
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range []int{0, 10, chunkBytes} {
		sealed, err := k.Seal(nil, content(n), "body")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sealed[HeaderBytes:])
	}
	f.Fuzz(func(t *testing.T, chunks []byte) {
		header, err := k.Seal(nil, nil, "body")
		if err != nil {
			t.Fatal(err)
		}
		// Under a fresh salt nothing of the corpus is right.
		if got, err := io.ReadAll(k.NewReader(io.MultiReader(bytes.NewReader(header[:HeaderBytes]), bytes.NewReader(chunks)), "body")); err == nil || len(got) > 0 {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
	})
}
