package relay

import gosmtp "github.com/emersion/go-smtp"

// Several of a transaction's recipients may be one mailbox: its address, an alias, another
// spelling. The table has one address on the platform for all of them, and a platform that
// is asked for it twice may deliver twice; whether it does is its own affair, and differs.
// So it is asked once, and what it answers is the answer for each of them, at RCPT and to the dot.
//
// The parameters of RFC 3461 are those of the first, with the NOTIFY of all that came in
// the same call. If a later one asks for a notice that the first didn't ask for, the platform
// is asked again: two copies are better than a notice that never comes.

// merge returns those of rcpts that the platform is to be asked for, and for each of rcpts
// which of those speaks for it; negative: the one of kept at the complement. The
// second result is nil if each speaks for itself.
func (t *Transaction) merge(rcpts []Recipient) (asked []Recipient, speaker []int) {
	if len(t.kept)+len(rcpts) == 1 {
		return rcpts, nil
	}
	if t.names == nil {
		t.names = make(map[string]int, len(t.kept)+len(rcpts))
		for i := range t.kept {
			t.names[t.kept[i].To.String()] = i
		}
	}
	var fresh map[string]int // in asked
	for i := range rcpts {
		r := &rcpts[i]
		name := r.To.String()
		speaks := len(asked)
		k, kept := t.names[name]
		n, now := fresh[name]
		switch {
		case now:
			speaks = n
			asked[n].Options = union(asked[n].Options, r.Options)
			asked[n].Group = asked[n].Group && r.Group
		case kept && t.covers(&t.kept[k].Options, &r.Options):
			speaks = ^k
		default:
			if fresh == nil {
				fresh = make(map[string]int, len(rcpts))
				asked = make([]Recipient, 0, len(rcpts))
			}
			fresh[name] = len(asked)
			asked = append(asked, *r)
		}
		speaker = append(speaker, speaks)
	}
	if len(asked) == len(rcpts) {
		return asked, nil
	}
	return asked, speaker
}

// spread returns what each recipient gets, by the answers for those that were asked. failed
// says that the transaction has ended, so that what was taken before counts no more.
func spread(answers []error, speaker []int, failed error) []error {
	if speaker == nil {
		return answers
	}
	errs := make([]error, len(speaker))
	for i, n := range speaker {
		if n >= 0 {
			errs[i] = answers[n]
		} else {
			errs[i] = failed
		}
	}
	return errs
}

// give notes for each accepted recipient which of kept speaks for it. before is the length
// of kept before the call.
func (t *Transaction) give(answers []error, speaker []int, before int) {
	if speaker == nil {
		for _, err := range answers {
			if err == nil {
				t.given = append(t.given, before)
				before++
			}
		}
		return
	}
	at := make([]int, len(answers)) // of kept
	for n, err := range answers {
		if at[n] = before; err == nil {
			before++
		}
	}
	for _, n := range speaker {
		switch {
		case n < 0:
			t.given = append(t.given, ^n)
		case answers[n] == nil:
			t.given = append(t.given, at[n])
		}
	}
}

// perRecipient makes of a platform's answers to the dot, one for each that it was asked for,
// one for each accepted recipient, if that is more. Their texts follow.
func (t *Transaction) perRecipient(errs []error) []error {
	if t.pool.ep.Protocol != ProtocolLMTP || len(t.given) == t.accepted {
		return errs
	}
	all, texts := make([]error, len(t.given)), make([]string, len(t.given))
	for i, n := range t.given {
		all[i] = errs[min(n, len(errs)-1)]
		if n < len(t.replies) {
			texts[i] = t.replies[n]
		}
	}
	if len(t.replies) > 0 {
		t.replies = texts
	}
	return all
}

// Events of NOTIFY.
const (
	onSuccess = 1 << iota
	onFailure
	onDelay
)

// events returns what a NOTIFY asks for. Without one it is failure, and delay as the server
// sees fit (RFC 3461 section 4.1).
func events(o *gosmtp.RcptOptions) (set int) {
	if len(o.Notify) == 0 {
		return onFailure | onDelay
	}
	for _, n := range o.Notify {
		switch n {
		case gosmtp.DSNNotifySuccess:
			set |= onSuccess
		case gosmtp.DSNNotifyFailure:
			set |= onFailure
		case gosmtp.DSNNotifyDelayed:
			set |= onDelay
		}
	}
	return set
}

// covers reports whether whoever is asked with one recipient's parameters sends all notices
// that another's ask for.
func (t *Transaction) covers(has, wants *gosmtp.RcptOptions) bool {
	needed := events(wants)
	if len(wants.Notify) == 0 {
		needed = onFailure
	}
	return !t.conn.caps.DSN || needed&^events(has) == 0
}

// union returns the parameters that ask for the notices of both. The original recipient is
// the first's, unless only the other wants notices.
func union(a, b gosmtp.RcptOptions) gosmtp.RcptOptions {
	has, adds := events(&a), events(&b)
	said := len(a.Notify) > 0 || len(b.Notify) == 0 || adds&onDelay == 0
	switch {
	case has == 0:
		return b
	case adds&^has == 0 && said:
		return a
	}
	a.Notify = nil
	for _, n := range [...]struct {
		event int
		word  gosmtp.DSNNotify
	}{{onSuccess, gosmtp.DSNNotifySuccess}, {onFailure, gosmtp.DSNNotifyFailure}, {onDelay, gosmtp.DSNNotifyDelayed}} {
		if (has|adds)&n.event != 0 {
			a.Notify = append(a.Notify, n.word)
		}
	}
	return a
}
