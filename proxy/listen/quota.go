package listen

import "sync/atomic"

// Quota bounds the connections of several servers together, such as by the descriptors that this
// process may have. Its methods are safe for concurrent use.
type Quota struct {
	most  int64
	taken atomic.Int64
}

// NewQuota returns a quota of this many connections; 0: no limit.
func NewQuota(most int) *Quota { return &Quota{most: int64(most)} }

// take takes one, if there is one left. q may be nil: there is no limit.
func (q *Quota) take() bool {
	if q == nil {
		return true
	}
	if n := q.taken.Add(1); q.most > 0 && n > q.most {
		q.taken.Add(-1)
		return false
	}
	return true
}

// give gives one back.
func (q *Quota) give() {
	if q != nil {
		q.taken.Add(-1)
	}
}
