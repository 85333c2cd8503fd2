package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Handed is a message that a platform took by submission.
type Handed struct {
	Platform string
	ID       int
	Login    string // that the platform knew its client by
	At       time.Time
}

// checkVisits holds logins to the switches of their agencies, as messages are held to them:
// after one was told as done nobody is heard on its losing side.
func (r *Record) checkVisits(v *Verdict) {
	for i := range r.Visits {
		one := &r.Visits[i]
		v.Visits++
		what := "login of " + one.Login
		r.checkPlace(v, event{what, one.Platform, one.Login, one.At})
		if one.Last.After(one.At) {
			r.checkPlace(v, event{"the session of " + what, one.Platform, one.Login, one.Last})
		}
	}
	for i := range r.Handed {
		one := &r.Handed[i]
		r.checkPlace(v, event{fmt.Sprintf("submission %d", one.ID), one.Platform, one.Login, one.At})
	}
}

// checkSessions wants each session to be in its own mailbox all the time, no refusal that
// sounds final, and those of agencies that never moved to end by their clients alone.
func (r *Record) checkSessions(v *Verdict) {
	moved := r.moved()
	for i := range r.Sessions {
		s := &r.Sessions[i]
		id, agency, ok := r.agencyOf(s.Login)
		if !ok {
			v.Misrouted = append(v.Misrouted, fmt.Sprintf("login of %s: no agency of ours", s.Login))
			continue
		}
		for _, marker := range s.Markers {
			if marker != s.Platform+" "+s.Login {
				v.Misrouted = append(v.Misrouted, fmt.Sprintf("session of %s at node %d since %s was in %q, and in %q", s.Login, s.Node, stamp(s.Began), s.Markers[0], marker))
				break
			}
		}
		late := strings.HasPrefix(s.Answer, "NO [UNAVAILABLE]")
		if s.Answer != "" && s.Platform == "" && !late {
			v.Refused = append(v.Refused, fmt.Sprintf("login of %s at node %d: %s", s.Login, s.Node, s.Answer))
			continue
		}
		undisturbed := s.Platform != "" && s.By == "client"
		if moved[id] || undisturbed || s.Ended.IsZero() || r.faulty(s.Node, id, Try{Began: s.Began, Ended: s.Ended}) {
			continue
		}
		if late && agency.Armed || r.old(s.Began, s.Ended) && s.By != "node" {
			v.Slow++
			continue
		}
		v.Disturbed = append(v.Disturbed, fmt.Sprintf("session of %s at node %d from %s to %s: %s, ended by %s", s.Login, s.Node, stamp(s.Began), stamp(s.Ended),
			cmp.Or(s.Answer, "no answer"), cmp.Or(s.By, "nobody that said so")))
	}
}

// checkSubmissions wants each submission that was answered 250 to be on a platform, under its
// client's name, and no more copies than tries without an answer.
func (r *Record) checkSubmissions(v *Verdict) {
	moved := r.moved()
	handed := make(map[int][]Handed)
	for _, h := range r.Handed {
		handed[h.ID] = append(handed[h.ID], h)
	}
	for i := range r.Submitted {
		s := &r.Submitted[i]
		id, agency, _ := r.agencyOf(s.Login)
		copies := handed[s.ID]
		v.Submitted++
		if s.taken() && len(copies) == 0 {
			v.Lost = append(v.Lost, fmt.Sprintf("submission %d of %s was answered 250 by node %d and is nowhere", s.ID, s.Login, s.Node))
		}
		open := 0
		for _, t := range s.Tries {
			switch {
			case t.Dotted && t.Answer == "":
				open++
			case strings.HasPrefix(t.Answer, "5"):
				v.Refused = append(v.Refused, fmt.Sprintf("submission %d of %s by node %d: %s", s.ID, s.Login, s.Node, t.Answer))
			}
			if moved[id] || strings.HasPrefix(t.Answer, "250") || r.faulty(s.Node, id, t) {
				continue
			}
			if agency.Armed && strings.HasPrefix(t.Answer, "4") || r.old(t.Began, t.Ended) && !strings.HasPrefix(t.Answer, "5") {
				v.Slow++
				continue
			}
			v.Disturbed = append(v.Disturbed, fmt.Sprintf("submission %d of %s at node %d: %s at %s after %s", s.ID, s.Login, s.Node, cmp.Or(t.Answer, "no answer"), stamp(t.Ended), t.Ended.Sub(t.Began)))
		}
		if len(copies) > 1+open {
			v.Repeated = append(v.Repeated, fmt.Sprintf("submission %d of %s is there %d times, with %d dots without answer", s.ID, s.Login, len(copies), open))
		}
		for _, h := range copies {
			if h.Login != s.Login {
				v.Misrouted = append(v.Misrouted, fmt.Sprintf("submission %d of %s came to %s as that of %s", s.ID, s.Login, h.Platform, h.Login))
			}
		}
	}
}

// old reports whether something took so long that the platform may have ended its connection
// for its age, as happens on a busy machine.
func (r *Record) old(began, ended time.Time) bool { return ended.Sub(began) > r.Lifetime*3/4 }

// moved are the agencies that somebody wanted to switch.
func (r *Record) moved() map[string]bool {
	moved := make(map[string]bool)
	for _, s := range r.Switches {
		moved[s.Agency] = true
	}
	return moved
}

// sortVisits puts them in order, for those who read a verdict.
func sortVisits(all []Visit) {
	slices.SortFunc(all, func(a, b Visit) int { return a.At.Compare(b.At) })
}
