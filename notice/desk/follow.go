package desk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mailcutover/notice"
	"mailcutover/notice/outbox"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

const (
	// followInterval is how often the table says that it is there, change or none.
	followInterval = 5 * time.Second

	// followAtOnce is how many changes are kept in one write.
	followAtOnce = 64

	// unreadPatience is for how long the table may be away before an alarm says that events
	// of it aren't told; the node itself has said so long before.
	unreadPatience = time.Minute
)

// follow derives events from the table's log until ctx ends.
func (d *Desk) follow(ctx context.Context) {
	f := &follower{Desk: d, good: time.Now()}
	for said := ""; ctx.Err() == nil; {
		err := f.attempt(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errResynced) {
			continue
		}
		if text := err.Error(); text != said {
			said = text
			d.o.Logger.Warn("the table's log is not followed for notices", "error", err)
		}
		if since := time.Since(f.good); since > unreadPatience {
			d.o.Alarms.Raise(unreadAlarm, fmt.Sprintf("Nobody is told of the table's changes: its log can't be followed since %s. %v", f.good.Format(time.RFC3339), err))
		}
		if !pause(ctx, d.o.Pace) {
			return
		}
	}
}

type follower struct {
	*Desk
	good    time.Time // when the table was last heard
	pending []table.Entry
	failure error // of keeping what alive saw
}

// attempt follows until something is wrong.
func (f *follower) attempt(ctx context.Context) error {
	known, ok := f.box.Known()
	if !ok {
		return f.resync(ctx, outbox.Known{}, "")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.pending, f.failure = nil, nil
	from := routing.Position{Incarnation: known.Incarnation, Revision: known.Revision, Term: known.Term}
	err := f.o.Table.Follow(ctx, from, followInterval, func(e table.Entry) error {
		f.pending = append(f.pending, e)
		if len(f.pending) >= followAtOnce {
			return f.keep(ctx)
		}
		return f.failure
	}, func(time.Time, routing.Position) {
		if f.failure = f.keep(ctx); f.failure != nil {
			cancel()
			return
		}
		f.heard()
	})
	switch {
	case f.failure != nil:
		return f.failure
	case errors.Is(err, table.ErrIncarnation):
		return f.resync(ctx, known, "it is another table")
	case errors.Is(err, table.ErrRegressed):
		return f.resync(ctx, known, "the table went back")
	case errors.Is(err, table.ErrGap):
		return f.resync(ctx, known, "the log doesn't reach back that far")
	}
	return err
}

func (f *follower) heard() {
	f.good = time.Now()
	f.o.Alarms.Clear(unreadAlarm)
}

// keep derives the events of what was followed, and keeps them.
func (f *follower) keep(ctx context.Context) error {
	if len(f.pending) == 0 {
		return nil
	}
	a := outbox.Addition{Stream: outbox.Table}
	fresh := make(map[string]notice.Facts)
	known := func(key string) notice.Facts {
		if facts, ok := fresh[key]; ok {
			return facts
		}
		return f.box.Facts(key)
	}
	for i := range f.pending {
		e := &f.pending[i]
		at := outbox.Known{Incarnation: e.Position.Incarnation, Position: notice.Position{Term: e.Position.Term, Revision: e.Position.Revision}}
		c := notice.Change{
			Installation: f.o.Installation, Incarnation: at.Incarnation, Position: at.Position, Time: e.Time, Who: e.Who, Reason: e.Reason, Known: known,
		}
		for _, r := range notice.Records(&e.Update) {
			a.Events = append(a.Events, notice.Derive(&c, &r, known(r.Key))...)
			a.Records = append(a.Records, r)
			fresh[r.Key] = r.Facts
		}
		a.Known = &at
	}
	if !f.put(ctx, a) {
		return ctx.Err()
	}
	f.pending = f.pending[:0]
	return nil
}

// resync takes the table as it stands. Events tell in what it differs from what was
// known, if anything was.
func (f *follower) resync(ctx context.Context, was outbox.Known, why string) error {
	u, err := f.o.Table.Snapshot(ctx)
	if err != nil {
		return err
	}
	at := outbox.Known{Incarnation: u.Position.Incarnation, Position: notice.Position{Term: u.Position.Term, Revision: u.Position.Revision}}
	a := outbox.Addition{Stream: outbox.Table, Known: &at, Records: notice.Records(&u)}
	shown := make(map[string]bool, len(a.Records))
	fresh := make(map[string]notice.Facts, len(a.Records))
	for i := range a.Records {
		shown[a.Records[i].Key] = true
		fresh[a.Records[i].Key] = a.Records[i].Facts
	}
	a.Records = append(a.Records, notice.Vanished(f.box.Keys(), shown)...)
	if was.Incarnation != "" {
		c := notice.Change{
			Installation: f.o.Installation, Incarnation: at.Incarnation, Position: at.Position, Time: time.Now(), Late: true,
			Known: func(key string) notice.Facts { return fresh[key] },
		}
		a.Events = append(a.Events, notice.Gap(&c, was.Position, why))
		for i := range a.Records {
			r := &a.Records[i]
			a.Events = append(a.Events, notice.Derive(&c, r, f.box.Facts(r.Key))...)
		}
	}
	if !f.put(ctx, a) {
		return ctx.Err()
	}
	f.heard()
	return errResynced
}

// errResynced is how an attempt ends that took the table as it stands.
var errResynced = errors.New("the table was read as a whole")
