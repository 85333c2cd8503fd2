package memdisk

import (
	"errors"
	"slices"
	"syscall"
	"testing"
)

// TestLosses wants each kind of loss to take what it says, of a file with safe and unsafe
// bytes, of names made, changed and removed, and of a directory.
func TestLosses(t *testing.T) {
	d := New()
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	write := func(path, text string, sync bool) {
		t.Helper()
		f, err := d.Create(path)
		must(err)
		_, err = f.WriteString(text)
		must(err)
		if sync {
			must(f.Sync())
		}
	}
	must(d.MakeDir("/a"), d.SyncDir("/"))
	f, err := d.Create("/a/file")
	must(err)
	f.WriteString("safe")
	must(f.Sync())
	write("/a/gone", "x", true)
	must(d.SyncDir("/a"))
	f.WriteString("unsafe")
	write("/a/new", "y", true)
	must(d.Remove("/a/gone"), d.MakeDir("/b"))
	for loss, want := range map[Loss]map[string]string{
		LoseAll:     {"/a/file": "safe", "/a/gone": "x"},
		LoseNothing: {"/a/file": "safeunsafe", "/a/new": "y"},
		LoseBytes:   {"/a/file": "safe", "/a/new": "y"},
		LoseNames:   {"/a/file": "safeunsafe", "/a/gone": "x"},
		LoseHalf:    {"/a/file": "safeuns", "/a/new": "y"},
		LoseFirst:   {"/a/file": "safe\x00\x00\x00afe"},
		LoseSecond:  {"/a/file": "safeunsafe", "/a/gone": "x", "/a/new": "y"},
	} {
		after := d.Restart(loss)
		got := after.Files()
		if len(got) != len(want) {
			t.Errorf("%s: %q, want %q", loss, got, want)
		}
		for path, text := range want {
			if string(got[path]) != text {
				t.Errorf("%s: %s is %q, want %q", loss, path, got[path], text)
			}
		}
		_, err := after.Names("/b")
		if there := err == nil; there != slices.Contains([]Loss{LoseNothing, LoseBytes, LoseHalf, LoseFirst}, loss) {
			t.Errorf("%s: directory that was not made durable is there: %t", loss, there)
		}
	}
	if got := d.Restart(LoseNothing).Restart(LoseAll).Files(); string(got["/a/file"]) != "safe" || got["/a/new"] != nil {
		t.Errorf("a kill, and then a power cut: %q", got)
	}
}

// TestFaults wants chosen operations to fail, and a failed fsync to lose its bytes for ever.
func TestFaults(t *testing.T) {
	d := New()
	f, err := d.Create("/file")
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("lost")
	d.Fail(func(op Op, _ string) error {
		if op == OpSync {
			return syscall.EIO
		}
		return nil
	})
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	d.Fail(nil)
	if err := errors.Join(f.Sync(), d.SyncDir("/")); err != nil {
		t.Error(err)
	}
	if got := d.Restart(LoseAll).Files()["/file"]; len(got) != 0 {
		t.Errorf("the second fsync saved %q", got)
	}
	d.CrashBefore(2)
	if _, err := f.WriteString("x"); err != nil {
		t.Error(err)
	}
	if _, err := f.WriteString("y"); !errors.Is(err, ErrCrashed) || !d.Crashed() {
		t.Error(err)
	}
}
