package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// CheckTimeout is how long a check may take. What comes later counts as no.
const CheckTimeout = 250 * time.Millisecond

// batch is what is asked together: while one question is under way, all that comes is
// collected for the next.
type batch struct {
	versions []table.AgencyEpoch
	asked    map[table.AgencyEpoch]struct{}

	names map[namesAt]error // of copies that lack a name; the error says what is wrong with one

	done  chan struct{} // closed with the answer
	err   error         // of the question itself
	stale map[table.AgencyEpoch]error
}

// namesAt is when names changed last, in a copy of the table.
type namesAt struct {
	term   uint32
	mapped routing.Revision
}

// Check implements [Rights]. The question that answers it is sent after the call began.
func (k *Keeper) Check(ctx context.Context, versions ...table.AgencyEpoch) error {
	b, err := k.answered(ctx, func(b *batch) {
		for _, v := range versions {
			if _, ok := b.asked[v]; !ok {
				b.asked[v] = struct{}{}
				b.versions = append(b.versions, v)
			}
		}
	})
	if err != nil {
		return err
	}
	for _, v := range versions {
		if err := b.stale[v]; err != nil {
			return err
		}
	}
	return nil
}

// Names returns nil if the table says now that no name was changed since a copy at pos, nor
// lost: what that copy lacks, nobody has. It is asked together with checks, and takes as long.
func (k *Keeper) Names(ctx context.Context, pos routing.Position) error {
	at := namesAt{pos.Term, pos.Mapped}
	b, err := k.answered(ctx, func(b *batch) { b.names[at] = nil })
	if err != nil {
		return err
	}
	return b.names[at]
}

// answered adds to the next question and waits for its answer.
func (k *Keeper) answered(ctx context.Context, add func(*batch)) (*batch, error) {
	ctx, cancel := context.WithTimeout(ctx, CheckTimeout)
	defer cancel()
	k.checkMu.Lock()
	b := k.collecting
	if b == nil {
		b = &batch{asked: make(map[table.AgencyEpoch]struct{}), stale: make(map[table.AgencyEpoch]error), names: make(map[namesAt]error), done: make(chan struct{})}
		k.collecting = b
	}
	add(b)
	k.checkMu.Unlock()
	select {
	case k.check <- struct{}{}:
	default:
	}
	select {
	case <-b.done:
		return b, b.err
	case <-ctx.Done():
		return nil, fmt.Errorf("check with the table: %w", ctx.Err())
	}
}

// answerChecks asks the table for one batch after the other, until ctx ends.
func (k *Keeper) answerChecks(ctx context.Context) {
	for {
		select {
		case <-k.check:
		case <-ctx.Done():
			return
		}
		k.checkMu.Lock()
		b := k.collecting
		k.collecting = nil
		k.checkMu.Unlock()
		if b == nil {
			continue
		}
		k.counts.checks.Add(1)
		asking, cancel := context.WithTimeout(ctx, CheckTimeout)
		for at := range b.names {
			if b.err == nil {
				b.err = k.askNames(asking, b, at)
			}
		}
		for rest := b.versions; len(rest) > 0 && b.err == nil; {
			n := min(len(rest), table.MaxChecked)
			b.err = k.ask(asking, b, rest[:n])
			rest = rest[n:]
		}
		if b.err != nil && asking.Err() != nil {
			b.err = fmt.Errorf("%w: %w", asking.Err(), b.err)
		}
		cancel()
		if b.err != nil {
			k.counts.checksFailed.Add(1)
			if errors.Is(b.err, table.ErrRejoining) || errors.Is(b.err, table.ErrNotMember) {
				k.Kick() // another server: it has to hear of us
			}
			b.err = fmt.Errorf("check with the table: %w", b.err)
		}
		close(b.done)
	}
}

// askNames asks whether names are as they were.
func (k *Keeper) askNames(ctx context.Context, b *batch, at namesAt) error {
	err := k.o.Table.Check(ctx, table.Check{
		Incarnation: k.o.Replica.State().Position().Incarnation, Node: k.o.Node, Instance: k.instance, Mapped: at.mapped, Term: at.term,
	})
	if errors.Is(err, table.ErrStale) {
		b.names[at] = err
		return nil
	}
	return err
}

// ask asks for these versions. A table that names one that isn't right says nothing of the
// others: they are asked for in halves.
func (k *Keeper) ask(ctx context.Context, b *batch, versions []table.AgencyEpoch) error {
	err := k.o.Table.Check(ctx, table.Check{
		Incarnation: k.o.Replica.State().Position().Incarnation, Node: k.o.Node, Instance: k.instance, Agencies: versions,
	})
	switch {
	case !errors.Is(err, table.ErrStale):
		return err
	case len(versions) == 1:
		b.stale[versions[0]] = err
		return nil
	}
	half := len(versions) / 2
	if err := k.ask(ctx, b, versions[:half]); err != nil {
		return err
	}
	return k.ask(ctx, b, versions[half:])
}
