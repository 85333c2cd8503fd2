package campaign

import (
	"context"
	"fmt"
	"slices"
	"time"

	"mailcutover/test/cluster"
)

// storeFault is a fault of a platform with mailboxes, drawn the more often the more weight it has.
type storeFault struct {
	name   string
	weight int
	do     func(w *waysBack, ctx context.Context, s *Store) error
}

// ofStores are done to a platform with mailboxes.
var ofStores = []storeFault{
	{"Dovecot killed", 3, func(w *waysBack, ctx context.Context, s *Store) error {
		s.Kill()
		wait(ctx, w.upTo(3*time.Second))
		return s.Start(ctx)
	}},
	{"Dovecot stopped", 3, func(w *waysBack, ctx context.Context, s *Store) error {
		if err := s.Pause(); err != nil {
			return err
		}
		wait(ctx, w.upTo(5*time.Second))
		return s.Resume()
	}},
	{"connections reset", 4, func(w *waysBack, ctx context.Context, s *Store) error {
		for range 1 + w.draw(8) {
			s.IMAPDoor.Reset()
			s.LMTPDoor.Reset()
			wait(ctx, w.upTo(500*time.Millisecond))
		}
		return nil
	}},
	{"answers held back", 3, func(w *waysBack, ctx context.Context, s *Store) error {
		for _, d := range []*Door{s.IMAPDoor, s.LMTPDoor} {
			d.Stall(true)
			defer d.Stall(false)
		}
		wait(ctx, w.upTo(4*time.Second))
		if w.draw(2) == 0 { // they are lost
			s.IMAPDoor.Reset()
			s.LMTPDoor.Reset()
		}
		return nil
	}},
	{"connections refused", 3, func(w *waysBack, ctx context.Context, s *Store) error {
		for _, d := range []*Door{s.IMAPDoor, s.LMTPDoor} {
			d.Refuse(true)
			defer d.Refuse(false)
			d.Reset()
		}
		wait(ctx, w.upTo(4*time.Second))
		return nil
	}},
}

// troubleStore does something to a platform.
func (w *waysBack) troubleStore(ctx context.Context) error {
	s := w.stores[[]string{cluster.Exchange, cluster.OX}[w.draw(2)]]
	sum := 0
	for i := range ofStores {
		sum += ofStores[i].weight
	}
	k := w.draw(sum)
	f := ofStores[slices.IndexFunc(ofStores, func(f storeFault) bool {
		k -= f.weight
		return k < 0
	})]
	if !s.mending.TryLock() {
		return nil
	}
	defer s.mending.Unlock()
	end := w.c.Trouble("platform "+s.Platform+": "+f.name, -1, "")
	defer end()
	if err := f.do(w, ctx, s); err != nil {
		return fmt.Errorf("%s of %s: %w", f.name, s.Platform, err)
	}
	w.tally.Add("platform", f.name, 1)
	return nil
}
