package alarm

import (
	"sync"
	"time"
)

// Sink takes what a human has to see; *[Set] is one.
type Sink interface {
	Raise(key, text string)
	Clear(key string) bool
}

// Standing are alarms of one part that end by themselves: they stand as long as their reason does.
// It is safe for concurrent use. Use [NewStanding].
type Standing struct {
	to    Sink
	again time.Duration

	mu     sync.Mutex
	raised map[string]said
}

// said is what was said last of an alarm.
type said struct {
	text string
	at   time.Time
}

// NewStanding returns alarms of which none stands. again is how often one is raised whose reason
// stays, also if a person has cleared it; 0: when its text changes.
func NewStanding(to Sink, again time.Duration) *Standing {
	return &Standing{to: to, again: again, raised: make(map[string]said)}
}

// Set raises these alarms, texts by keys, and clears those of before that are not among them. An
// empty text is no alarm.
func (s *Standing) Set(texts map[string]string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.raised {
		if texts[key] == "" {
			s.to.Clear(key)
			delete(s.raised, key)
		}
	}
	for key, text := range texts {
		was := s.raised[key]
		due := was.text != text
		if s.again > 0 {
			due = now.Sub(was.at) >= s.again
		}
		if due && text != "" {
			s.to.Raise(key, text)
			s.raised[key] = said{text, now}
		}
	}
}
