package verify

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// sample picks mailboxes by their ids: the same for one draw, whatever the order, and others
// for another.
type sample struct {
	most int // 0: all
	draw uint64
	jobs []drawn
}

type drawn struct {
	rank uint64
	job  job
}

func newSample(most int, draw uint64) *sample { return &sample{most: most, draw: draw} }

// offer takes a mailbox into account.
func (s *sample) offer(j job) {
	var b [24]byte
	binary.LittleEndian.PutUint64(b[:], s.draw)
	copy(b[8:], j.row.Mailbox[:])
	s.jobs = append(s.jobs, drawn{xxhash.Sum64(b[:]), j})
	if s.most > 0 && len(s.jobs) >= 2*s.most+64 {
		s.cut()
	}
}

// cut keeps those of the lowest ranks.
func (s *sample) cut() {
	slices.SortFunc(s.jobs, func(a, b drawn) int { return cmp.Compare(a.rank, b.rank) })
	s.jobs = s.jobs[:min(len(s.jobs), s.most)]
}

// picked returns the sample, or everything.
func (s *sample) picked() []job {
	if s.most > 0 {
		s.cut()
	}
	jobs := make([]job, len(s.jobs))
	for i := range s.jobs {
		jobs[i] = s.jobs[i].job
	}
	return jobs
}
