package desk

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"mailcutover/notice"
	"mailcutover/notice/outbox"
)

// Status is how a channel stands on this node.
type Status struct {
	Name, Kind, To string
	Filter         notice.Filter

	Waiting  int       // events that it wants and hasn't got, of the table only where it is this node's turn
	Oldest   time.Time // of them; zero: none waits
	Failures int       // in a row
	Failure  string    // the last one; empty: none since the last success
	Next     time.Time // when it is tried again; zero: at once
	Sent     time.Time // the last success; zero: none since the start
	Told     uint64    // events since the channels were set last
	Missed   uint64    // attempts that failed since then
	Lost     uint64    // events that were given up, or dropped as too many waited, since then

	Teller string // the node that tells of the table's events; empty: it isn't known
}

// Status returns how all channels stand, as they are configured.
func (d *Desk) Status() ([]Status, error) {
	d.mu.Lock()
	channels, teller, turn := d.channels, d.teller, d.turn
	d.mu.Unlock()
	all := make([]Status, 0, len(channels))
	for _, c := range channels {
		one := Status{Name: c.Name, Kind: c.Kind, To: c.To, Filter: c.Filter, Teller: string(teller)}
		d.mu.Lock()
		s := d.senders[c.Name]
		d.mu.Unlock()
		if s != nil {
			s.mu.Lock()
			one.Failures, one.Failure, one.Next, one.Sent, one.Told = s.failures, s.failure, s.next, s.sent, s.told
			one.Missed, one.Lost = s.missed, s.lost
			s.mu.Unlock()
		}
		for _, stream := range []outbox.Stream{outbox.Node, outbox.Table} {
			if stream == outbox.Table && !turn {
				continue
			}
			list, err := d.box.Next(c.Name, stream, d.o.Limit)
			if err != nil {
				return nil, err
			}
			for i := range list {
				e := &list[i].Event
				if !c.Filter.Wants(e) {
					continue
				}
				if one.Waiting++; one.Oldest.IsZero() || e.Time.Before(one.Oldest) {
					one.Oldest = e.Time
				}
			}
		}
		all = append(all, one)
	}
	return all, nil
}

// Test sends an event that says only that somebody tries, at once and once, past what waits. nil: the
// receiver has it. who and why stand in it.
func (d *Desk) Test(ctx context.Context, name, who, why string) (notice.Event, error) {
	e := notice.NewTest(d.o.Installation, string(d.o.Node), uuid.NewString(), who, why, time.Now())
	d.mu.Lock()
	channels, ended := d.channels, d.ended
	d.mu.Unlock()
	if ended {
		return e, ErrEnded
	}
	for _, c := range channels {
		if c.Name != name {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, c.Timeout)
		defer cancel()
		if err := c.Send(ctx, []notice.Event{e}); err != nil {
			return e, fmt.Errorf("test channel %s: %w", name, err)
		}
		return e, nil
	}
	return e, fmt.Errorf("%w: %s", ErrNoChannel, name)
}
