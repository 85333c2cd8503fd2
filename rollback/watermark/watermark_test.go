package watermark_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/watermark"
	"mailcutover/routing"
)

func id(n byte) routing.MailboxID { return routing.MailboxID{15: n} }

func rows(n int) []routing.Row {
	all := make([]routing.Row, n)
	for i := range all {
		all[i] = routing.Row{Mailbox: id(byte(i + 1)), Addresses: []routing.Address{routing.Address(fmt.Sprintf("m%d@health.example", i))}}
	}
	return all
}

func set() *watermark.Set {
	return &watermark.Set{
		Agency: "health", Operation: "8c1f7a52-7a55-4a1c-9d43-1f1f6e0c4711", Taken: time.Date(2026, 3, 1, 2, 3, 4, 5000, time.UTC),
		Sides: []watermark.Side{
			{Platform: "exchange", Mailboxes: map[routing.MailboxID]*watermark.Mailbox{
				id(1): {Mailbox: id(1), Folders: []watermark.Folder{{Name: "INBOX", UIDValidity: 7, UIDNext: 12, HighestModSeq: 1 << 40, Messages: 3}, {Name: "Entwürfe/läuft", UIDValidity: 8, UIDNext: 1}}},
				id(2): {Mailbox: id(2), Error: "no access to the mailbox"},
			}},
			{Platform: "ox", Mailboxes: map[routing.MailboxID]*watermark.Mailbox{}},
		},
	}
}

func TestKeptByDigest(t *testing.T) {
	here, err := watermark.Open(filepath.Join(t.TempDir(), "one"))
	if err != nil {
		t.Fatal(err)
	}
	want := set()
	d, err := here.Put(want)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := here.Put(set()); err != nil || again != d {
		t.Errorf("the same set is %s and %s, %v; want one name", d, again, err)
	}
	text, err := here.Bytes(d)
	if err != nil {
		t.Fatal(err)
	}
	there, err := watermark.Open(filepath.Join(t.TempDir(), "two"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := there.Get(d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a set that isn't there: %v, want fs.ErrNotExist", err)
	}
	if err := there.Take(d, append(slices.Clone(text), 0)); !errors.Is(err, watermark.ErrDamaged) {
		t.Errorf("bytes of another digest are taken: %v", err)
	}
	if err := there.Take(d, text); err != nil {
		t.Fatal(err)
	}
	got, err := there.Get(d)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v; want %+v", got, err, want)
	}
	if m := got.Mailbox("exchange", id(1)); m == nil || len(m.Folders) != 2 {
		t.Errorf("mailbox 1 has %+v", m)
	}
	if f, ok := got.Mailbox("exchange", id(1)).Folder("Entwürfe/läuft"); !ok || f.UIDValidity != 8 {
		t.Errorf("its folder is %+v, %v", f, ok)
	}
	if got.Mailbox("exchange", id(2)) != nil || got.Mailbox("ox", id(1)) != nil || got.Mailbox("elsewhere", id(1)) != nil || (*watermark.Set)(nil).Mailbox("ox", id(1)) != nil {
		t.Error("a mailbox that wasn't looked at has a state")
	}
	if _, ok := got.Mailbox("ox", id(1)).Folder("INBOX"); ok {
		t.Error("a folder of no mailbox has a state")
	}
	if err := there.Remove(d); err != nil {
		t.Fatal(err)
	}
	if _, err := there.Bytes(d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after it was removed: %v", err)
	}
}

// Whatever happens to the file, nothing else is read than what was written.
func TestDamagedFile(t *testing.T) {
	dir := t.TempDir()
	files, err := watermark.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	d, err := files.Put(set())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, d.String()+".watermarks")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range text {
		bad := slices.Clone(text)
		bad[i] ^= 0x20
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Get(d); !errors.Is(err, watermark.ErrDamaged) {
			t.Fatalf("with byte %d damaged: %v, want ErrDamaged", i, err)
		}
	}
	for _, n := range []int{0, 1, len(text) / 2, len(text) - 1} {
		if err := os.WriteFile(path, text[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Get(d); !errors.Is(err, watermark.ErrDamaged) {
			t.Fatalf("with %d of %d bytes: %v, want ErrDamaged", n, len(text), err)
		}
	}
}

func TestTakeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at, most atomic.Int32
		last := 0
		side, err := watermark.Take(t.Context(), "ox", slices.Values(rows(40)), 4, func(_ context.Context, row *routing.Row) ([]watermark.Folder, error) {
			n := at.Add(1)
			defer at.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Second)
			if row.Mailbox == id(7) {
				return nil, mailstore.ErrNoMailbox
			}
			return []watermark.Folder{{Name: "INBOX", UIDValidity: 1, UIDNext: 9, Messages: 2}}, nil
		}, func(done int) {
			if done != last+1 {
				t.Errorf("progress says %d after %d", done, last)
			}
			last = done
		})
		if err != nil {
			t.Fatal(err)
		}
		messages := 0
		for _, m := range side.Mailboxes {
			for i := range m.Folders {
				messages += int(m.Folders[i].Messages)
			}
		}
		if len(side.Mailboxes) != 40 || side.Failed() != 1 || side.Mailboxes[id(7)].Error == "" || messages != 78 {
			t.Errorf("%d mailboxes, %d failed, %d messages; want 40, 1, 78", len(side.Mailboxes), side.Failed(), messages)
		}
		if most.Load() != 4 || last != 40 {
			t.Errorf("%d at once, %d told; want 4 and 40", most.Load(), last)
		}
	})
}

// A platform that doesn't answer is no mailbox's fault: nothing is taken. So is the end of ctx.
func TestTakeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		side, err := watermark.Take(t.Context(), "ox", slices.Values(rows(40)), 4, func(ctx context.Context, row *routing.Row) ([]watermark.Folder, error) {
			if row.Mailbox == id(3) {
				return nil, fmt.Errorf("%w: %w", watermark.ErrPlatform, mailstore.ErrAuth)
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}, nil)
		if side != nil || !errors.Is(err, mailstore.ErrAuth) || !strings.Contains(err.Error(), id(3).String()) {
			t.Errorf("got %v, %v; want ErrAuth and the mailbox", side, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		side, err = watermark.Take(ctx, "ox", slices.Values(rows(40)), 4, func(ctx context.Context, _ *routing.Row) ([]watermark.Folder, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, nil)
		if side != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, %v; want the deadline", side, err)
		}
	})
}

// broken is a platform whose connections break so often.
type broken struct {
	mailstore.Store
	opened, breaks int
}

func (b *broken) Open(context.Context, routing.Row, mailstore.Side) (mailstore.Session, error) {
	b.opened++
	return &session{broken: b.opened <= b.breaks}, nil
}

type session struct {
	mailstore.Session
	broken bool
}

func (s *session) Folders(context.Context) ([]mailstore.Folder, error) {
	if s.broken {
		return nil, fmt.Errorf("list: %w", mailstore.ErrUnavailable)
	}
	return []mailstore.Folder{{Name: "INBOX", UIDValidity: 3, UIDNext: 4, HighestModSeq: 5, Messages: 6}, {Name: "Archive", NoSelect: true}}, nil
}

func (s *session) Close() error { return nil }

func TestAtTriesAgain(t *testing.T) {
	for _, c := range []struct {
		breaks, opened int
		want           error
	}{{0, 1, nil}, {2, 3, nil}, {9, 3, watermark.ErrPlatform}} {
		synctest.Test(t, func(t *testing.T) {
			b := &broken{breaks: c.breaks}
			folders, err := watermark.At(b, mailstore.Target)(t.Context(), &rows(1)[0])
			if !errors.Is(err, c.want) || b.opened != c.opened {
				t.Errorf("%d breaks: %v after %d tries; want %v after %d", c.breaks, err, b.opened, c.want, c.opened)
			}
			if want := []watermark.Folder{{Name: "INBOX", UIDValidity: 3, UIDNext: 4, HighestModSeq: 5, Messages: 6}}; err == nil && !slices.Equal(folders, want) {
				t.Errorf("folders are %+v, want %+v", folders, want)
			}
		})
	}
}
