package durable_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/internal/durable/memdisk"
)

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func read(t *testing.T, f *durable.Folder, name string) string {
	t.Helper()
	r, err := f.Open(name)
	if err != nil {
		return err.Error()
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func open(t *testing.T, disk durable.Disk, path string) *durable.Folder {
	t.Helper()
	f, err := durable.Open(disk, path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFolderOnARealDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	f := open(t, nil, dir)
	for _, s := range []string{"one", "two"} {
		if err := f.Write("x", text(s)); err != nil || read(t, f, "x") != s {
			t.Fatalf("%v, %q", err, read(t, f, "x"))
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "x")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	half := errors.New("half")
	err := f.Write("x", func(w io.Writer) error { io.WriteString(w, "thr"); return half })
	if !errors.Is(err, half) || read(t, f, "x") != "two" {
		t.Errorf("%v, %q", err, read(t, f, "x"))
	}
	if err := os.WriteFile(filepath.Join(dir, ".writing-x"), []byte("left over"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Write("x", text("three")); err != nil || read(t, f, "x") != "three" {
		t.Errorf("over what a failure left: %v", err)
	}
	os.WriteFile(filepath.Join(dir, ".writing-y"), []byte("left over"), 0o600)
	f = open(t, nil, dir)
	aside, err := f.SetAside("x", time.Unix(1, 5))
	if err != nil || !strings.HasPrefix(aside, "x.aside-1970") {
		t.Errorf("%q, %v", aside, err)
	}
	if err := f.Write("z", text("")); err != nil {
		t.Fatal(err)
	}
	names, err := f.Names()
	if err != nil || !slices.Equal(names, []string{"z"}) {
		t.Errorf("%q, %v", names, err)
	}
	if err := f.Remove("z"); err != nil {
		t.Error(err)
	}
	if err := f.Remove("z"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed twice: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}

func TestFolderRefusesNames(t *testing.T) {
	f := open(t, memdisk.New(), "/d")
	for _, name := range []string{"", ".", "..", ".x", "a/b", "../x", `a\b`, "a\x00", strings.Repeat("x", 201)} {
		_, openErr := f.Open(name)
		_, asideErr := f.SetAside(name, time.Time{})
		for _, err := range []error{f.Write(name, text("")), f.Remove(name), openErr, asideErr} {
			if !errors.Is(err, durable.ErrBadName) {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
}

// A stamp stays as long as the file does, and a file that takes its place has another,
// even of the same bytes on a real disk.
func TestStamp(t *testing.T) {
	for _, disk := range []durable.Disk{durable.OS{}, memdisk.New()} {
		dir := "/d"
		if disk == (durable.OS{}) {
			dir = t.TempDir()
		}
		f := open(t, disk, dir)
		path := filepath.Join(dir, "x")
		if s, err := disk.Stamp(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%T: stamp %v of no file: %v", disk, s, err)
		}
		stamp := func(content string) durable.Stamp {
			t.Helper()
			if content != "" {
				if err := f.Write("x", text(content)); err != nil {
					t.Fatal(err)
				}
			}
			s, err := disk.Stamp(path)
			if err != nil || s == (durable.Stamp{}) {
				t.Fatalf("%T: stamp %v, %v", disk, s, err)
			}
			return s
		}
		one := stamp("one")
		if again := stamp(""); again != one {
			t.Errorf("%T: stamp %v, then %v", disk, one, again)
		}
		if two := stamp("two"); two == one {
			t.Errorf("%T: two files with stamp %v", disk, one)
		}
		if disk == (durable.OS{}) {
			one = stamp("same")
			if two := stamp("same"); two == one {
				t.Errorf("two files of the same bytes with stamp %v", one)
			}
		}
	}
}

// At whatever call the disk fails or power goes, the file is the old one or the new one;
// the new one, if Write returned nil.
func TestWriteIsAllOrNothing(t *testing.T) {
	for n := 0; ; n++ {
		disk := memdisk.New()
		f := open(t, disk, "/d")
		if err := f.Write("x", text("old")); err != nil {
			t.Fatal(err)
		}
		disk.FailAfter(n, errors.New("disk failed"))
		err := f.Write("x", text("new one"))
		disk.Fail(nil)
		for _, loss := range memdisk.Losses() {
			after := open(t, disk.Restart(loss), "/d")
			got := read(t, after, "x")
			if err == nil && got != "new one" || got != "old" && got != "new one" {
				t.Errorf("failing after %d calls, %s, Write returned %v: %q", n, loss, err, got)
			}
			if names, _ := after.Names(); !slices.Equal(names, []string{"x"}) {
				t.Errorf("failing after %d calls: %q", n, names)
			}
		}
		if err2 := f.Write("x", text("again")); err2 != nil || read(t, f, "x") != "again" {
			t.Errorf("failing after %d calls, written again: %v", n, err2)
		}
		if err == nil {
			if n < 4 {
				t.Errorf("only %d calls", n)
			}
			return
		}
	}
}

func TestMakeDirMakesWhatIsAbove(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	for range 2 {
		if err := (durable.OS{}).MakeDir(dir); err != nil {
			t.Fatal(err)
		}
	}
	for d := dir; filepath.Base(d) != "a"; d = filepath.Dir(d) {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", d, info, err)
		}
	}
}
