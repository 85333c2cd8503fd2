package campaign

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/test/cluster"
)

// refusal is one that platforms answer to some messages.
type refusal struct {
	verb, reply string

	// about says what it is about: the content, which the sender is told always; the mailbox, which
	// he is told unless its agency is armed; or us, which he is never told (docs/architecture/message.md).
	about string
}

const (
	aboutContent = "content"
	aboutMailbox = "mailbox"
	aboutUs      = "us"
)

// refusals are all of them.
var refusals = []refusal{
	{"RCPT", "550 5.1.1 No such user", aboutMailbox},
	{platformtest.VerbDot, "554 5.6.0 Content not taken", aboutContent},
	{"RCPT", "550 5.2.1 Mailbox disabled", aboutMailbox},
	{platformtest.VerbDot, "550 5.7.1 Policy", aboutContent},
	{"RCPT", "550 5.7.1 Unable to relay", aboutUs},
	{platformtest.VerbDot, "552 5.3.4 Too large", aboutContent},
	{"RCPT", "552 5.3.4 Too large for this user", aboutMailbox},
	{platformtest.VerbDot, "550 5.1.1 No such user, after all", aboutMailbox},
	{platformtest.VerbDot, "554 5.3.2 Not accepting network messages", aboutUs},
}

const (
	refusedEvery = 9 // one message of so many
	refusedTimes = 3 // after which a platform takes it, unless its content is refused
)

// refusalOf is that of a message; nil: it is refused by nobody.
func refusalOf(id int) *refusal {
	if id%refusedEvery != 0 {
		return nil
	}
	return &refusals[id/refusedEvery%len(refusals)]
}

// recipient is that of a RCPT.
var recipient = regexp.MustCompile(`(?i)^RCPT TO:<([^>]*)>`)

// Said is a permanent answer of a platform to a message.
type Said struct {
	Platform string
	ID       int
	Rcpt     string
	At       time.Time
	Reply    string
	About    string
}

// Refusals are what platforms said for good. Its methods are safe for concurrent use.
type Refusals struct {
	mu   sync.Mutex
	said []Said
}

// On is how a platform answers to messages whose senders are named, and as usual else.
func (f *Refusals) On(platform string) platformtest.Script {
	return func(c platformtest.Command) platformtest.Reaction {
		if c.Transaction == nil || c.Verb != "RCPT" && c.Verb != platformtest.VerbDot {
			return usual(c)
		}
		var id int
		if _, err := fmt.Sscanf(c.Transaction.From, "m%d@out.example", &id); err != nil {
			return usual(c)
		}
		k := refusalOf(id)
		if k == nil || k.verb != c.Verb {
			return usual(c)
		}
		rcpt := strings.Join(c.Transaction.Accepted(), " ") // one
		if m := recipient.FindStringSubmatch(c.Line); m != nil {
			rcpt = m[1]
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		times := 0
		for _, s := range f.said {
			if s.ID == id {
				times++
			}
		}
		if times >= refusedTimes && k.about != aboutContent {
			return usual(c)
		}
		f.said = append(f.said, Said{Platform: platform, ID: id, Rcpt: rcpt, At: time.Now(), Reply: k.reply, About: k.about})
		return platformtest.Reaction{Reply: k.reply}
	}
}

// Said returns what platforms said so far.
func (f *Refusals) Said() []Said {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.said)
}

// armed reports whether an agency is known to be armed at a time: it was so from the beginning, or
// has been switched.
func armed(r *cluster.Record, o *Roster, agency string, at time.Time) bool {
	for _, s := range r.Switches {
		if s.Agency == agency && s.Told.Before(at) {
			return true
		}
	}
	since, ok := o.Armed[agency]
	return ok && since.Before(at)
}

// sides are the platforms that an agency may have been on at a time.
func sides(r *cluster.Record, agency string, at time.Time) []string {
	now := []string{r.Agencies[agency].Home}
	for _, s := range r.Switches {
		if s.Agency != agency || at.Before(s.Asked) || !s.Done {
			continue
		}
		if at.Before(s.Told) {
			return []string{s.From, s.To}
		}
		now = []string{s.To}
	}
	return now
}

// agencyOf is the agency of an address.
func agencyOf(address string) string {
	_, domain, _ := strings.Cut(address, "@")
	return strings.TrimSuffix(domain, ".example")
}

// mayPass returns why a platform's permanent answer to a message must not have become the sender's;
// "": it may.
func mayPass(r *cluster.Record, o *Roster, s *cluster.Sent, w *Said) string {
	agency := agencyOf(s.Rcpt)
	ours := []string{s.Rcpt}
	if all := o.holders(s.Rcpt, w.At); len(all) > 0 {
		ours = all
	}
	switch {
	case w.About == aboutUs:
		return "is not about the message"
	case w.About == aboutMailbox && armed(r, o, agency, w.At):
		return "is about a mailbox of an armed agency"
	case !slices.Contains(ours, w.Rcpt):
		return "was to " + w.Rcpt
	case !slices.Contains(sides(r, agency, w.At), w.Platform):
		return "is that of " + w.Platform + ", which didn't hold the mailbox"
	}
	return ""
}

// settleRefused wants each permanent answer to be what the platform that held the mailbox said to
// this message and recipient, if it may pass, and each notice likewise. What is right is taken out of
// the record: an attempt that was refused, and a message that was acknowledged, refused later, and
// whose sender was told so.
func settleRefused(r *cluster.Record, o *Roster, said []Said) (bad []string, passed, told int) {
	words := make(map[int][]*Said)
	for i := range said {
		words[said[i].ID] = append(words[said[i].ID], &said[i])
	}
	notices, arrived := make(map[int]cluster.Arrival), make(map[int]bool)
	var rest []cluster.Arrival
	for _, a := range r.Arrived {
		var id int
		if _, err := fmt.Sscanf(a.Rcpt, "m%d@out.example", &id); err == nil && a.Null {
			notices[id] = a
			continue
		}
		arrived[a.ID] = true
		rest = append(rest, a)
	}
	r.Arrived = rest
	r.Sent = slices.DeleteFunc(r.Sent, func(s cluster.Sent) bool {
		a, noticed := notices[s.ID]
		if !noticed {
			return false
		}
		delete(notices, s.ID)
		why := "and no platform had refused it"
		for _, w := range words[s.ID] {
			if w.At.Before(a.At) {
				if why = mayPass(r, o, &s, w); why == "" {
					break
				}
				why = "and " + fmt.Sprintf("%q", w.Reply) + " " + why
			}
		}
		if why != "" {
			bad = append(bad, fmt.Sprintf("P5: a notice says that message %d for %s can't be delivered, at %s, %s", s.ID, s.Rcpt, a.At.Format(clock), why))
		}
		told++
		return !arrived[s.ID]
	})
	for id := range notices {
		bad = append(bad, fmt.Sprintf("P5: a notice about message %d, which nobody sent", id))
	}
	for i := range r.Sent {
		s := &r.Sent[i]
		s.Tries = slices.DeleteFunc(s.Tries, func(t cluster.Try) bool {
			if !strings.HasPrefix(t.Answer, "5") {
				return false
			}
			why := ""
			for _, w := range words[s.ID] {
				if w.Reply != t.Answer || w.At.Before(t.Began) || w.At.After(t.Ended) {
					continue
				}
				if why = mayPass(r, o, s, w); why == "" {
					passed++
					return true
				}
				why = fmt.Sprintf("P5: message %d for %s was told %q by node %d at %s, which %s", s.ID, s.Rcpt, t.Answer, s.Node, t.Ended.Format(clock), why)
			}
			if why != "" {
				bad = append(bad, why)
			}
			return false
		})
	}
	return bad, passed, told
}
