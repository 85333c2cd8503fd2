package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

const (
	snapshotTimeout = 30 * time.Second
	mappingTimeout  = 30 * time.Second

	// parallelLoads is how many mappings are loaded at a time. Two keep a connection and
	// a processor busy; more would only add memory that is thrown away.
	parallelLoads = 2

	// retryPause is the least time between two attempts of upkeep.
	retryPause = 5 * time.Second
)

var (
	errGap       = errors.New("gap in the change log")
	errTerm      = errors.New("table is in another term") // what was followed may not be its past
	errSilent    = errors.New("nothing heard from the table")
	errBadRecord = errors.New("table holds a record that can't be used")
)

// attempt loads a snapshot and follows the table; it returns why that ended, never nil.
// It always begins with a snapshot, which is small without the mappings: what the table
// said while we were away is then known, whatever happened to it.
func (r *Replica) attempt(ctx context.Context) error {
	if err := r.load(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := max(10*r.opts.Interval, 5*time.Second)
	silence := time.AfterFunc(patience, func() { cancel(fmt.Errorf("%w for %s", errSilent, patience)) })
	defer silence.Stop()

	var broken error // found by alive, which can't return it
	err := r.opts.Table.Follow(ctx, r.State().Position(), r.opts.Interval,
		func(e table.Entry) error {
			silence.Stop()
			defer silence.Reset(patience)
			if broken != nil {
				return broken
			}
			return r.apply(ctx, e.Update)
		},
		func(at time.Time, pos routing.Position) {
			silence.Stop()
			defer silence.Reset(patience)
			if broken != nil {
				return
			}
			if broken = r.compare(pos); broken != nil {
				if !errors.Is(broken, errTerm) {
					r.close(broken)
				}
				cancel(broken)
				return
			}
			r.contact(at, pos)
			r.upkeep(ctx)
		})
	switch cause := context.Cause(ctx); {
	case broken != nil:
		return broken
	case errors.Is(cause, errSilent):
		return cause
	case err == nil:
		err = errors.New("following ended")
	}
	if errors.Is(err, table.ErrGap) || errors.Is(err, table.ErrIncarnation) || errors.Is(err, table.ErrEmpty) {
		r.close(err)
	}
	return fmt.Errorf("follow the table from revision %d: %w", r.State().Position().Revision, err)
}

// compare says what is wrong with a table that stands at pos while this copy follows it.
func (r *Replica) compare(pos routing.Position) error {
	ours := r.State().Position()
	switch {
	case pos.Incarnation != ours.Incarnation:
		return fmt.Errorf("%w: it is %s, the copy is of %s", table.ErrIncarnation, pos.Incarnation, ours.Incarnation)
	case pos.Revision < ours.Revision || pos.Term < ours.Term:
		return fmt.Errorf("%w: from revision %d of term %d to %d of %d", table.ErrRegressed, ours.Revision, ours.Term, pos.Revision, pos.Term)
	case pos.Revision == ours.Revision && pos.Term > ours.Term:
		return fmt.Errorf("%w: from %d to %d at revision %d", errTerm, ours.Term, pos.Term, pos.Revision)
	}
	return nil
}

// load makes the State equal to a snapshot of the table.
func (r *Replica) load(ctx context.Context) error {
	asked := time.Now()
	sctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	u, err := r.opts.Table.Snapshot(sctx)
	cancel()
	if err != nil {
		if errors.Is(err, table.ErrEmpty) || errors.Is(err, table.ErrIncarnation) {
			r.close(err)
		}
		return fmt.Errorf("read the table: %w", err)
	}
	u.Whole = true
	base := r.State()
	ours := base.Position()
	if err := checkRecords(&u); err != nil {
		r.close(err)
		return err
	}
	if u.Position.Incarnation == "" {
		r.close(table.ErrEmpty)
		return fmt.Errorf("read the table: %w", table.ErrEmpty)
	}
	if ours.Incarnation != "" {
		if err := r.compare(u.Position); err != nil {
			r.close(err)
			if errors.Is(err, table.ErrIncarnation) {
				// A copy of a table that has had nothing is no reason to keep out of another.
				if !bare(base) {
					return err
				}
				base = routing.NewState(routing.Position{})
				clear(r.loaded)
			}
			r.log.Warn("table is loaded again", "reason", err.Error(), "revision", u.Position.Revision)
		}
	}
	if u.Mappings, err = r.loadMappings(ctx, base, u.Agencies); err != nil {
		return err
	}
	u.LostNames = base.LosesNames(&u)
	next, err := base.Apply(u)
	if err != nil {
		return err
	}
	clear(r.loaded)
	if err := r.publish(next, &u); err != nil {
		return err
	}
	r.logState(next)
	if next.LostNames() && !base.LostNames() {
		r.log.Error("names were seen that the table lost: until people have looked, no name counts as unknown", "revision", u.Position.Revision)
	}
	r.asked, r.ahead = time.Time{}, 0 // of an earlier connection
	r.contact(asked, u.Position)
	r.caughtUp()
	r.mu.Lock()
	r.status.Err = nil
	r.mu.Unlock()
	largePages(next, u.Mappings)
	return nil
}

// bare reports whether a State has nothing but nodes: its node founded an empty table, in
// whose place there is another now.
func bare(s *routing.State) bool {
	for range s.FixedAddresses() {
		return false
	}
	return s.Len()+len(s.Domains())+len(s.LostDomains())+len(s.Operations()) == 0
}

// apply puts one change on top of the State.
func (r *Replica) apply(ctx context.Context, u routing.Update) error {
	now := r.State()
	ours := now.Position()
	if u.Position.Incarnation != ours.Incarnation {
		err := r.compare(u.Position)
		r.close(err)
		return err
	}
	if u.Position.Revision != ours.Revision+1 {
		err := fmt.Errorf("%w: revision %d follows %d", errGap, u.Position.Revision, ours.Revision)
		r.close(err)
		return err
	}
	if u.Position.Term != ours.Term {
		// Drivers look whether the past is the same. All of it is read again even so.
		return fmt.Errorf("%w: from %d to %d at revision %d", errTerm, ours.Term, u.Position.Term, u.Position.Revision)
	}
	if u.Position.Mapped < ours.Mapped {
		err := fmt.Errorf("%w: names changed at revision %d last, now it is %d", table.ErrRegressed, ours.Mapped, u.Position.Mapped)
		r.close(err)
		return err
	}
	if err := checkRecords(&u); err != nil {
		r.close(err)
		return err
	}
	var err error
	if u.Mappings, err = r.loadMappings(ctx, now, u.Agencies); err != nil {
		return err
	}
	next, err := now.Apply(u)
	if err != nil {
		return err
	}
	clear(r.loaded)
	if err := r.publish(next, &u); err != nil {
		return err
	}
	r.caughtUp()
	if !slices.Equal(now.Regressed(), next.Regressed()) {
		r.logState(next)
	}
	return nil
}

// logState reports what keeps agencies closed.
func (r *Replica) logState(s *routing.State) {
	for _, id := range s.Regressed() {
		a, _ := s.Agency(id)
		seen, _ := s.Seen(id)
		r.log.Error("agency is closed: its record is older than one seen before, or of another history",
			"agency", id, "epoch", a.Epoch.String(), "seen", seen.Epoch.String())
	}
}

// loadMappings loads those mappings of the agencies that base doesn't have. A mapping
// that the table hasn't whole is left out: its agency is closed then. Any other failure
// is returned; what was loaded is kept for the next attempt.
func (r *Replica) loadMappings(ctx context.Context, base *routing.State, agencies []routing.Agency) ([]*routing.Mapping, error) {
	var (
		mu      sync.Mutex
		got     []*routing.Mapping
		failure error
	)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wanted := make(chan routing.Agency)
	var loaders sync.WaitGroup
	for range parallelLoads {
		loaders.Go(func() {
			for a := range wanted {
				m, err := r.loadMapping(ctx, a)
				mu.Lock()
				switch {
				case m != nil:
					got = append(got, m)
					r.loaded[a.ID] = m
				case err != nil && failure == nil:
					failure = err
					cancel()
				}
				mu.Unlock()
			}
		})
	}
	for _, a := range agencies {
		if have := base.Mapping(a.ID); a.Mapping.IsZero() || have != nil && have.Digest() == a.Mapping {
			continue
		}
		mu.Lock()
		m := r.loaded[a.ID]
		if m != nil && m.Digest() == a.Mapping {
			got = append(got, m)
		}
		mu.Unlock()
		if m == nil || m.Digest() != a.Mapping {
			wanted <- a
		}
	}
	close(wanted)
	loaders.Wait()
	return got, failure
}

// loadMapping loads one mapping; nil without an error if the table hasn't it whole.
func (r *Replica) loadMapping(ctx context.Context, a routing.Agency) (*routing.Mapping, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, mappingTimeout)
	defer cancel()
	m, err := r.opts.Table.Mapping(ctx, a.ID, a.Mapping)
	switch {
	case err == nil && m.Agency() == a.ID && m.Digest() == a.Mapping:
		return m, nil
	case err == nil:
		err = fmt.Errorf("%w: table returned %s of %s", routing.ErrBadMapping, m.Digest(), m.Agency())
	}
	if errors.Is(err, table.ErrNoMapping) || errors.Is(err, routing.ErrBadMapping) {
		r.log.Error("agency is closed: its mapping can't be loaded", "agency", a.ID, "epoch", a.Epoch.String(), "error", err)
		return nil, nil
	}
	return nil, fmt.Errorf("load mapping of agency %s: %w", a.ID, err)
}

// upkeep tries again, now and then, what failed without ending the following: to load
// mappings that the table hadn't whole, and to write the disk copy.
func (r *Replica) upkeep(ctx context.Context) {
	if time.Since(r.retried) < r.retryPause {
		return
	}
	r.retried = time.Now()
	r.mu.Lock()
	failed := r.status.DiskErr != nil
	r.mu.Unlock()
	if failed {
		r.disk.wake()
	}
	now := r.State()
	u := routing.Update{Position: now.Position()}
	for _, id := range now.Missing() {
		if a, ok := now.Agency(id); ok {
			u.Agencies = append(u.Agencies, a)
		}
	}
	if len(u.Agencies) == 0 {
		return
	}
	var err error
	if u.Mappings, err = r.loadMappings(ctx, now, u.Agencies); err != nil || len(u.Mappings) == 0 {
		return // unreachable: Follow will say so
	}
	if next, err := now.Apply(u); err == nil {
		clear(r.loaded)
		_ = r.publish(next, nil) // no record changes, so nothing has to be durable
	}
}

// checkRecords refuses what no driver of ours stores: names that would become file names
// or keys, and records twice.
func checkRecords(u *routing.Update) error {
	seen := make(map[routing.AgencyID]bool, len(u.Agencies))
	for _, a := range u.Agencies {
		if _, err := routing.ParseAgencyID(string(a.ID)); err != nil {
			return fmt.Errorf("%w: revision %d: %w", errBadRecord, u.Position.Revision, err)
		}
		if seen[a.ID] {
			return fmt.Errorf("%w: revision %d: agency %s stands twice", errBadRecord, u.Position.Revision, a.ID)
		}
		seen[a.ID] = true
	}
	return nil
}
