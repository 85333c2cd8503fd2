package redistable

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// reportLost is for how long after it was acknowledged a change that was lost, or of which
// that can't be told any more, keeps Confirm from succeeding. Who made it asks at once, and
// again within a second or two; others shouldn't wait for it longer than they must.
const reportLost = 10 * time.Second

// acks are the changes that were acknowledged and that no server has confirmed yet: of
// each term the newest one, which stands for those before it. The zero value has none.
type acks struct {
	mu     sync.Mutex
	newest map[uint32]ack // by term; mu
}

type ack struct {
	pos routing.Position
	at  time.Time
}

// add takes note of a change.
func (a *acks) add(pos routing.Position) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.newest == nil {
		a.newest = make(map[uint32]ack)
	}
	if pos.Revision >= a.newest[pos.Term].pos.Revision {
		a.newest[pos.Term] = ack{pos, time.Now()}
	}
}

// all returns what is to be confirmed now.
func (a *acks) all() map[uint32]ack {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.newest)
}

// confirm compares what is due with a server that has confirmed what it has.
func (a *acks) confirm(due map[uint32]ack, book *table.Book) (lost error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for term, d := range due {
		err := book.MayFollow(d.pos)
		if d.pos.Incarnation != book.Position.Incarnation {
			err = fmt.Errorf("%w: it is of incarnation %s", table.ErrRegressed, book.Position.Incarnation)
		}
		if err != nil {
			lost = fmt.Errorf("revision %d of term %d was acknowledged: %w", d.pos.Revision, term, err)
		}
		if a.newest[term] == d && (err == nil || time.Since(d.at) > reportLost) {
			delete(a.newest, term)
		}
	}
	return lost
}
