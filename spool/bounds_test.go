package spool

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"mailcutover/internal/durable/memdisk"
)

// Room tells of one agency what Commit would say of a message for it, and of no other.
func TestRoom(t *testing.T) {
	for _, c := range []struct {
		name   string
		bounds Bounds
		size   int64
		full   bool
	}{
		{"no bounds", Bounds{}, 1 << 40, false},
		{"fewer messages", Bounds{AgencyMessages: 3}, 100, false},
		{"as many messages", Bounds{AgencyMessages: 2}, 0, true},
		{"it fits", Bounds{AgencyBytes: 300}, 100, false},
		{"it doesn't fit", Bounds{AgencyBytes: 299}, 100, true},
		{"of unknown size", Bounds{AgencyBytes: 201}, 0, false},
		{"of unknown size, no byte left", Bounds{AgencyBytes: 200}, 0, true},
		{"a size that no sum has", Bounds{AgencyBytes: 300}, 1<<63 - 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openStore(t, Options{Disk: memdisk.New(), Bounds: c.bounds})
			defer s.Close()
			for range 2 {
				accept(t, s, strings.Repeat("x", 100), rcpt("anna", "health", StateHeld))
			}
			err := s.Room("health", c.size)
			if errors.Is(err, ErrFull) != c.full || err != nil && !c.full {
				t.Errorf("room of the agency: %v, want full %t", err, c.full)
			}
			if c.full && !strings.Contains(err.Error(), `"health"`) {
				t.Errorf("%v doesn't say what is full", err)
			}
			if c.size > 100 {
				return
			}
			if err := s.Room("works", c.size); err != nil {
				t.Errorf("room of another agency: %v", err)
			}
			mixed := []Recipient{rcpt("bert", "works", StateHeld), rcpt("anna", "health", StateHeld)}
			if _, err := send(t, s, strings.Repeat("x", int(c.size)), mixed...); errors.Is(err, ErrFull) != c.full {
				t.Errorf("a message for both: %v, want full %t", err, c.full)
			}
		})
	}
}

// Whoever asks for room may do so while others commit.
func TestRoomWhileOthersCommit(t *testing.T) {
	s := openStore(t, Options{Disk: memdisk.New(), Bounds: Bounds{AgencyMessages: 20}})
	defer s.Close()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for s.Room("health", 0) == nil {
				if _, err := send(t, s, "body", rcpt("anna", "health", StateHeld)); err != nil && !errors.Is(err, ErrFull) {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if counts, _ := s.Counts(); counts.Messages != 20 {
		t.Errorf("%d messages, 20 are allowed", counts.Messages)
	}
}
