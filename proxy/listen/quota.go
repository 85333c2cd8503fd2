package listen

import "sync/atomic"

// Quota bounds what the connections of several servers take together, such as the descriptors
// that this process may have. Its methods are safe for concurrent use.
type Quota struct {
	pot  *pot
	each int64
}

// pot is what quotas share.
type pot struct {
	most  int64
	taken atomic.Int64
}

// NewQuota returns a quota of this much, of which a connection takes 1; 0: no limit.
func NewQuota(most int) *Quota { return &Quota{pot: &pot{most: int64(most)}, each: 1} }

// For returns the same quota for servers whose connections take this much each. q may be nil:
// there is no limit then.
func (q *Quota) For(each int) *Quota {
	if q == nil {
		return nil
	}
	return &Quota{pot: q.pot, each: int64(each)}
}

// take takes what a connection needs, if there is as much left. q may be nil.
func (q *Quota) take() bool {
	if q == nil {
		return true
	}
	if n := q.pot.taken.Add(q.each); q.pot.most > 0 && n > q.pot.most {
		q.pot.taken.Add(-q.each)
		return false
	}
	return true
}

// give gives it back.
func (q *Quota) give() {
	if q != nil {
		q.pot.taken.Add(-q.each)
	}
}
