package admintest

import (
	"slices"
	"sync"

	"mailcutover/admin"
)

// Sessions is a node's registry of sessions that nobody has. The zero value is empty.
type Sessions struct {
	mu   sync.Mutex
	list []admin.Session
}

// Add lets a session begin.
func (s *Sessions) Add(one admin.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, one)
}

// List implements admin.LoginSessions.
func (s *Sessions) List(q admin.SessionQuery) (fit []admin.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.list {
		if q.Matches(&s.list[i]) {
			fit = append(fit, s.list[i])
		}
	}
	return fit
}

// Close implements admin.LoginSessions.
func (s *Sessions) Close(q admin.SessionQuery, _ string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := len(s.list)
	s.list = slices.DeleteFunc(s.list, func(one admin.Session) bool { return q.Matches(&one) })
	return was - len(s.list)
}
