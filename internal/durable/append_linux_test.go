package durable_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"mailcutover/internal/durable"
)

func create(t *testing.T) (durable.File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "appended")
	f, err := durable.OS{}.CreateAppended(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() }) // again, at times
	return f, path
}

// What was written can be read at once, with nothing but zeros behind it, which Close cuts
// off: through several stretches of room, and after Truncate.
func TestAppended(t *testing.T) {
	f, path := create(t)
	var want []byte
	check := func() {
		t.Helper()
		got, err := os.ReadFile(path)
		if err != nil || !bytes.HasPrefix(got, want) {
			t.Fatalf("%d bytes, %v, want %d that were written", len(got), err, len(want))
		}
		if rest := bytes.Trim(got[len(want):], "\x00"); len(rest) > 0 {
			t.Fatalf("%q behind the end", rest)
		}
	}
	r := rand.New(rand.NewPCG(1, 1))
	for len(want) < 1<<20 {
		p := make([]byte, r.IntN(3000))
		for i := range p {
			p[i] = byte(1 + r.IntN(255))
		}
		if n, err := f.Write(p); n != len(p) || err != nil {
			t.Fatalf("wrote %d of %d: %v", n, len(p), err)
		}
		want = append(want, p...)
		if r.IntN(50) == 0 {
			check()
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Truncate(1000); err != nil {
		t.Fatal(err)
	}
	want = append(want[:1000], "more"...)
	if _, err := f.WriteString("more"); err != nil {
		t.Fatal(err)
	}
	check()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes after Close, %v, want %d", len(got), err, len(want))
	}
}

func TestAppendedIsCutWhenItIsClosed(t *testing.T) {
	f, path := create(t)
	if _, err := f.WriteString("few"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "few" {
		t.Errorf("%q, %v", got, err)
	}
}

// A page that isn't there any more is an error of Write, not the end of the process.
func TestAppendedWithoutItsPages(t *testing.T) {
	f, path := create(t)
	if _, err := f.WriteString("few"); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Write(make([]byte, 10000)); n != 0 || !errors.Is(err, syscall.EIO) {
		t.Errorf("wrote %d bytes, %v, want EIO", n, err)
	}
}
