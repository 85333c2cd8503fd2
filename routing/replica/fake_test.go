package replica

import (
	"context"
	"fmt"
	"sync"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// fakeTable is a table in memory that can lose changes, vanish and come back as another.
type fakeTable struct {
	table.Coordination // nobody asks for it here

	mu          sync.Mutex
	pos         routing.Position
	base        routing.Revision // the log begins after it
	agencies    map[routing.AgencyID]routing.Agency
	domains     map[string]routing.Domain
	fixed       map[routing.Address]routing.Fixed
	mappings    map[routing.Digest]*routing.Mapping
	log         []table.Entry
	down        error
	skip        routing.Revision // an entry that the log doesn't show
	loads       int
	snapshots   int
	loadFailure error
	moved       chan struct{}
}

func newFakeTable() *fakeTable {
	return &fakeTable{
		pos:      routing.Position{Incarnation: "first"},
		agencies: map[routing.AgencyID]routing.Agency{}, domains: map[string]routing.Domain{},
		fixed: map[routing.Address]routing.Fixed{}, mappings: map[routing.Digest]*routing.Mapping{},
		moved: make(chan struct{}),
	}
}

// do changes the table under its lock and lets followers look.
func (f *fakeTable) do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.moved)
	f.moved = make(chan struct{})
}

// set stores records as the next revision.
func (f *fakeTable) set(agencies ...routing.Agency) routing.Position {
	return f.setAll(routing.Update{Agencies: agencies})
}

func (f *fakeTable) setAll(u routing.Update) (pos routing.Position) {
	f.do(func() {
		f.pos.Revision++
		u.Position = f.pos
		for _, a := range u.Agencies {
			f.agencies[a.ID] = a
		}
		for _, d := range u.Domains {
			f.domains[d.Name] = d
		}
		for _, x := range u.Fixed {
			f.fixed[x.Address] = x
		}
		f.log = append(f.log, table.Entry{Update: u})
		pos = f.pos
	})
	return pos
}

func (f *fakeTable) Init(context.Context) (routing.Position, error) {
	return f.Position(context.Background())
}

func (f *fakeTable) Position(context.Context) (routing.Position, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pos, f.down
}

func (f *fakeTable) Snapshot(context.Context) (routing.Update, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.snapshots++
	u := routing.Update{Position: f.pos}
	for _, a := range f.agencies {
		u.Agencies = append(u.Agencies, a)
	}
	for _, d := range f.domains {
		if !d.Removed {
			u.Domains = append(u.Domains, d)
		}
	}
	for _, x := range f.fixed {
		if !x.Removed {
			u.Fixed = append(u.Fixed, x)
		}
	}
	return u, f.down
}

func (f *fakeTable) Follow(ctx context.Context, from routing.Position, interval time.Duration, apply func(table.Entry) error, alive func(time.Time, routing.Position)) error {
	next := from.Revision
	for {
		at := time.Now()
		f.mu.Lock()
		pos, down, moved, log := f.pos, f.down, f.moved, f.log
		base, skip := f.base, f.skip
		f.mu.Unlock()
		switch {
		case down != nil:
			return down
		case next < base && pos.Incarnation == from.Incarnation:
			return table.ErrGap
		}
		alive(at, pos)
		for pos.Incarnation == from.Incarnation && next < pos.Revision {
			next++
			if next == skip {
				continue
			}
			if err := apply(log[next-base-1]); err != nil {
				return fmt.Errorf("apply: %w", err)
			}
		}
		alive(at, pos)
		select {
		case <-moved:
		case <-time.After(interval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *fakeTable) Mapping(_ context.Context, agency routing.AgencyID, digest routing.Digest) (*routing.Mapping, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down != nil {
		return nil, f.down
	}
	if f.loadFailure != nil {
		return nil, f.loadFailure
	}
	m, ok := f.mappings[digest]
	if !ok {
		return nil, fmt.Errorf("%w: %s of %s", table.ErrNoMapping, digest, agency)
	}
	f.loads++
	return m, nil
}

func (f *fakeTable) PutMapping(_ context.Context, m *routing.Mapping) error {
	f.do(func() { f.mappings[m.Digest()] = m })
	return nil
}

func (f *fakeTable) Change(context.Context, table.Change) (routing.Position, error) {
	return routing.Position{}, table.ErrUnavailable
}
func (f *fakeTable) Confirm(context.Context) error { return nil }
func (f *fakeTable) Close() error                  { return nil }
