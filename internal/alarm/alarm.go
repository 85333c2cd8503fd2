package alarm

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Most is how many alarms a set keeps apart.
const Most = 1000

// OverflowKey is the key under which the alarms beyond [Most] are counted.
const OverflowKey = "alarms-overflow"

// Alarm is one thing that a human has to see.
type Alarm struct {
	Key   string    `json:"key"`   // tells it from others; the same reason has the same key
	Text  string    `json:"text"`  // what is wrong, on what, as it was said last
	Since time.Time `json:"since"` // when it was raised first
	Last  time.Time `json:"last"`  // when it was raised last
	Count int       `json:"count"` // how often
}

// Set is a node's alarms. It is safe for concurrent use. Use [NewSet].
type Set struct {
	log *slog.Logger

	mu     sync.Mutex
	alarms map[string]*Alarm
	raised uint64
}

// NewSet returns a set without alarms. log takes a line when one begins and when one is
// cleared; nil: none does.
func NewSet(log *slog.Logger) *Set {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Set{log: log, alarms: make(map[string]*Alarm)}
}

// Raise makes an alarm stand in the list, and counts it. text is for people: what is
// wrong, on what; neither secrets nor message content. It is logged, at level error,
// only if the key was not in the list.
func (s *Set) Raise(key, text string) {
	now := time.Now()
	s.mu.Lock()
	s.raised++
	a, known := s.alarms[key]
	if !known && key != OverflowKey && len(s.alarms) >= Most {
		s.mu.Unlock()
		// Not lost: the one that has no place of its own is in the log.
		s.log.Error("alarm beyond the list", "alarm", key, "text", text)
		s.Raise(OverflowKey, "more alarms than the list keeps apart; they are in the log")
		return
	}
	if !known {
		a = &Alarm{Key: key, Since: now}
		s.alarms[key] = a
	}
	a.Text, a.Last = text, now
	a.Count++
	s.mu.Unlock()
	if !known {
		s.log.Error("alarm", "alarm", key, "text", text)
	}
}

// Clear takes an alarm off the list: its reason is gone, or somebody saw to it. It
// reports whether it was there.
func (s *Set) Clear(key string) bool {
	s.mu.Lock()
	a, ok := s.alarms[key]
	delete(s.alarms, key)
	s.mu.Unlock()
	if ok {
		s.log.Info("alarm cleared", "alarm", key, "since", a.Since, "count", a.Count)
	}
	return ok
}

// List returns the alarms, the oldest first.
func (s *Set) List() []Alarm {
	s.mu.Lock()
	list := make([]Alarm, 0, len(s.alarms))
	for _, a := range s.alarms {
		list = append(list, *a)
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b Alarm) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Key, b.Key))
	})
	return list
}

// Len returns how many alarms are in the list.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.alarms)
}

// Raised returns how often an alarm was raised since the start, whether it was in the
// list already or not.
func (s *Set) Raised() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.raised
}

// Kinds counts the alarms in the list by kind: their key up to its first slash or colon.
func (s *Set) Kinds() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	kinds := make(map[string]int)
	for key := range s.alarms {
		if i := strings.IndexAny(key, "/:"); i >= 0 {
			key = key[:i]
		}
		kinds[key]++
	}
	return kinds
}
