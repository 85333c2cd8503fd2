package spool

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/internal/durable/memdisk"
)

// New mail meets ErrFull while the disk still has room for the ledger and for what ends
// mail that is there; and it is taken again once there is more.
func TestLeavesRoomOnTheDisk(t *testing.T) {
	const size = 100 << 30 // the margin is 256 MiB
	for _, c := range []struct {
		name string
		have Space
		err  error
		full bool
	}{
		{"much room", Space{size, size}, nil, false},
		{"a byte above the margin", Space{marginBytes + 1, size}, nil, false},
		{"the margin", Space{marginBytes, size}, nil, true},
		{"nothing", Space{0, size}, nil, true},
		{"a small disk above its margin", Space{6 << 20, 100 << 20}, nil, false},
		{"the margin of a small disk", Space{5 << 20, 100 << 20}, nil, true},
		{"a disk that doesn't tell", Space{}, errors.New("no answer"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				have, err := Space{size, size}, error(nil)
				s := openStore(t, Options{Disk: memdisk.New(), Space: func() (Space, error) { return have, err }})
				defer s.Close()
				ref := accept(t, s, "body", rcpt("anna", "health", StateHeld))

				have, err = c.have, c.err
				time.Sleep(2 * roomLook)
				if st := s.Status(); errors.Is(st.Full, ErrFull) != c.full || st.Full != nil && !c.full {
					t.Errorf("status says %v, want full %t", st.Full, c.full)
				}
				if _, err := send(t, s, "x", rcpt("anna", "health", StateHeld)); errors.Is(err, ErrFull) != c.full || err != nil && !c.full {
					t.Errorf("a message: %v, want full %t", err, c.full)
				}
				if err := s.Set(Outcome{Transaction: ref, State: StateDelivered}); err != nil {
					t.Errorf("what is there can't end: %v", err)
				}
				have, err = Space{size, size}, nil
				time.Sleep(2 * roomLook)
				if _, err := send(t, s, "x", rcpt("anna", "health", StateHeld)); err != nil || s.Status().Full != nil {
					t.Errorf("with room again: %v, %v", err, s.Status().Full)
				}
			})
		})
	}
}

// A body can't eat the margin either, nor can several that come at once.
func TestBodiesLeaveRoomOnTheDisk(t *testing.T) {
	const size = 100 << 20 // the margin is 5 MiB
	now := time.Now()
	s := openStore(t, Options{Disk: memdisk.New(), Now: func() time.Time { return now }, Space: func() (Space, error) { return Space{size/marginPart + 100<<10, size}, nil }})
	defer s.Close()
	if _, err := send(t, s, strings.Repeat("x", 60<<10), rcpt("anna", "health", StateHeld)); err != nil {
		t.Fatalf("the first: %v", err)
	}
	if _, err := send(t, s, strings.Repeat("x", 60<<10), rcpt("anna", "health", StateHeld)); !errors.Is(err, ErrFull) {
		t.Errorf("the second: %v, want %v", err, ErrFull)
	}
}

// The machine tells what its disks have.
func TestSpaceOfTheMachine(t *testing.T) {
	p, err := space(t.TempDir())
	if err != nil || p.Size <= 0 || p.Free < 0 || p.Free > p.Size {
		t.Errorf("the disk has %+v, %v", p, err)
	}
	if _, err := space(t.TempDir() + "/none"); err == nil {
		t.Error("a directory that isn't there has a disk")
	}
}
