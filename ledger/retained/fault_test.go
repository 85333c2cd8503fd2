package retained

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/mail"
)

// A disk that fails in any operation costs copies and nothing else: Keep returns, the failure is
// counted with its reason, and what comes later is kept again.
func TestASickDisk(t *testing.T) {
	for _, op := range []memdisk.Op{memdisk.OpCreate, memdisk.OpWrite, memdisk.OpRename, memdisk.OpSync, memdisk.OpSyncDir} {
		for _, size := range []int{100, 200_000} {
			t.Run(fmt.Sprintf("%s/%d", op, size), func(t *testing.T) {
				var now atomic.Int64
				now.Store(time.Now().Unix())
				disk := memdisk.New()
				s := open(t, Options{Disk: disk, Dir: "/retained", Keys: keys(t), Now: func() time.Time { return time.Unix(now.Load(), 0) }})
				first := put(s, text(1000), to("health", "dora")...)
				disk.Fail(func(o memdisk.Op, _ string) error {
					if o == op {
						return errDisk
					}
					return nil
				})
				put(s, text(size), to("health", "dora")...)
				put(s, text(size), to("tax", "erik")...) // makes a data key and a segment
				failing := s.Status()
				disk.Fail(nil)
				now.Add(5)
				last := put(s, text(size), to("health", "dora")...)
				st := s.Status()
				if st.Err != nil {
					t.Errorf("on a disk that is well again: %v", st.Err)
				}
				if int(st.Failed)+st.Copies != 4 {
					t.Errorf("%d copies and %d failed, want 4 in all", st.Copies, st.Failed)
				}
				var of uint64
				for _, a := range st.Agencies {
					of += a.Failed
					if one := s.Agency(a.ID); one.Failed != a.Failed {
						t.Errorf("%d copies of agency %s failed, and %d in all of them", one.Failed, a.ID, a.Failed)
					}
				}
				if of != st.Failed || st.Failed > 0 && s.Agency("health").Failed+s.Agency("tax").Failed != st.Failed {
					t.Errorf("%d copies failed, of the agencies %d", st.Failed, of)
				}
				if failing.Failed > 0 && (failing.Err == nil || !errors.Is(failing.Err, errDisk) && !errors.Is(failing.Err, errRefused)) {
					t.Errorf("why copies failed is %v", failing.Err)
				}
				for _, m := range []*Message{first, last} {
					got := find(t, s, Query{Transaction: m.Transaction})
					if len(got) != 1 {
						t.Fatalf("%d copies of %s", len(got), m.Transaction)
					}
					read(t, s, &got[0])
				}
			})
		}
	}
}

// A disk that hangs keeps no message for longer than the patience, and the next ones not at all;
// once it answers, copies are kept again.
func TestAHangingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hang atomic.Pointer[chan struct{}]
		s, err := Open(Options{Disk: memdisk.New(), Dir: "/retained", Space: func() (int64, int64, error) {
			if c := hang.Load(); c != nil {
				<-*c
			}
			return 1 << 40, 1 << 40, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		put(s, text(100), to("health", "dora")...)
		answers := make(chan struct{})
		hang.Store(&answers)
		time.Sleep(2 * roomLook) // in the bubble's time: now the disk is asked again
		began := time.Now()
		put(s, text(100), to("health", "dora")...)
		if took := time.Since(began); took != DefaultPatience {
			t.Errorf("the first message waited for %s, want %s", took, DefaultPatience)
		}
		began = time.Now()
		for range 1000 {
			put(s, text(100), to("health", "dora")...)
		}
		put(s, text(300_000), to("health", "dora")...)
		if took := time.Since(began); took != 0 {
			t.Errorf("later messages waited for %s", took)
		}
		if st := s.Status(); st.Failed != 1002 || !errors.Is(st.Err, errStalled) {
			t.Errorf("%d failed, %v; want 1002, errStalled", st.Failed, st.Err)
		}
		close(answers)
		synctest.Wait()
		put(s, text(100), to("health", "dora")...)
		if st := s.Status(); st.Failed != 1002 || st.Err != nil {
			t.Errorf("afterwards %d failed, %v", st.Failed, st.Err)
		}
	})
}

// What is damaged costs that copy: it is never another content, the others are found, and both
// are counted.
func TestDamage(t *testing.T) {
	for name, o := range map[string]Options{"plain": {Uncompressed: true}, "compressed": {}, "sealed": {Keys: keys(t)}} {
		t.Run(name, func(t *testing.T) {
			disk := memdisk.New()
			o.Disk, o.Dir = disk, "/retained"
			s := open(t, o)
			bodies := map[mail.TransactionID][]byte{}
			for i := range 20 {
				body := text(500 + 100*i)
				if i%10 == 0 {
					body = text(100_000)
				}
				bodies[put(s, body, to("health", "dora")...).Transaction] = body
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			names, err := disk.Names("/retained")
			if err != nil {
				t.Fatal(err)
			}
			flips := 0
			for _, name := range names {
				if strings.HasSuffix(name, ".json") {
					continue
				}
				f, err := disk.OpenAt("/retained/" + name)
				if err != nil {
					t.Fatal(err)
				}
				size, err := f.Size()
				if err != nil {
					t.Fatal(err)
				}
				for at := 0; at < int(size); at += 1 + int(size)/20 {
					flips++
					if err := disk.Flip("/retained/"+name, at); err != nil {
						t.Fatal(err)
					}
					damagedOnce(t, o, bodies, fmt.Sprintf("%s, byte %d", name, at))
					if err := disk.Flip("/retained/"+name, at); err != nil {
						t.Fatal(err)
					}
				}
			}
			if flips < 30 {
				t.Errorf("%d places were damaged", flips)
			}
		})
	}
}

// damagedOnce looks at copies of which one byte is wrong.
func damagedOnce(t *testing.T, o Options, bodies map[mail.TransactionID][]byte, what string) {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer s.Close()
	good, reported := 0, 0
	for c, err := range s.Find(context.Background(), Query{}) {
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: %v", what, err)
			}
			reported++
			continue
		}
		b, err := s.Open(&c)
		if err != nil {
			reported++
			continue
		}
		got, err := io.ReadAll(b)
		if err == nil && !bytes.Equal(got, bodies[c.Transaction]) {
			t.Errorf("%s: another content without an error", what)
		}
		if err = errors.Join(err, b.Close()); err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: %v", what, err)
			}
			reported++
			continue
		}
		good++
	}
	// A wrong byte in a header or a key costs all of a file; elsewhere one copy. In the totals
	// and in what a head says beside its digest it may cost nothing.
	if good < len(bodies) && reported == 0 {
		t.Errorf("%s: %d good copies of %d, and nothing is reported", what, good, len(bodies))
	}
	if good < len(bodies)-1 && good > 0 {
		t.Errorf("%s: %d good copies of %d", what, good, len(bodies))
	}
}
