package recall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/msgkey"
)

// How much is on its way between two writes of the journal.
const (
	batchMessages = 64
	batchBytes    = 8 << 20
)

// patience is how often a message is sent that To puts off.
const patience = 3

// sending is a candidate on its way.
type sending struct {
	c     *candidate
	flags []string
	at    mailstore.Appended
	taken bool
	found bool
	err   error
}

// bring puts candidates, given by their numbers, into their folders on To.
func (r *run) bring(ctx context.Context, all []candidate, missing []int) error {
	slices.Sort(missing)
	for len(missing) > 0 {
		from := all[missing[0]].folder
		n, bytes := 0, int64(0)
		for n < len(missing) && n < batchMessages && all[missing[n]].folder == from && (n == 0 || bytes+all[missing[n]].size <= batchBytes) {
			bytes += all[missing[n]].size
			n++
		}
		batch := make([]*sending, n)
		for i := range batch {
			batch[i] = &sending{c: &all[missing[i]]}
		}
		missing = missing[n:]
		if err := r.bringBatch(ctx, from, batch); err != nil {
			return err
		}
	}
	return nil
}

// bringBatch brings messages of one folder.
func (r *run) bringBatch(ctx context.Context, from int, batch []*sending) error {
	to, err := r.target(ctx, from)
	if aboutMessages(err) {
		var records []record
		for _, s := range batch {
			r.tried[r.origin(s.c)] = true
			records = append(records, r.notBack(s.c, ClassFolder, err.Error()))
		}
		return r.journal.write(records...)
	}
	if err != nil {
		return err
	}
	if err := r.open(ctx, from); err != nil {
		return err
	}
	for try := 1; ; try++ {
		later, err := r.send(ctx, to, batch)
		if err != nil || len(later) == 0 {
			return err
		}
		if try == patience || !r.rest(ctx, later[0].err, try) {
			return later[0].err
		}
		batch = later
	}
}

// longestRest is how long a mailbox waits at most for a platform that asks for time; beyond
// that its caller has better to do.
const longestRest = time.Minute

// rest waits as long as the platform asked for, or longer each time; false: that is too long.
func (r *run) rest(ctx context.Context, err error, try int) bool {
	pause := time.Second << try
	if t, ok := errors.AsType[*mailstore.ThrottledError](err); ok && t.After > 0 {
		pause = t.After
	}
	if pause > longestRest {
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// send brings a batch once, and returns those that To put off.
func (r *run) send(ctx context.Context, to *folder, batch []*sending) (later []*sending, err error) {
	var intents []record
	uids := make([]uint32, len(batch))
	for i, s := range batch {
		s.taken, s.err = false, nil
		uids[i] = s.c.uid
		intents = append(intents, record{Kind: kindIntent, origin: r.origin(s.c), Key: s.c.key, Ours: s.c.ours, To: to.Name})
	}
	if err := r.journal.write(intents...); err != nil {
		return nil, err
	}
	if err := r.journal.save(); err != nil {
		return nil, err
	}
	if err := r.transfer(ctx, to, uids, batch); err != nil {
		return nil, err
	}
	var records []record
	taken := batch[:0:0]
	for _, s := range batch {
		switch {
		case s.taken:
			taken = append(taken, s)
			records = append(records, record{Kind: kindAppended, origin: r.origin(s.c), Key: s.c.key, To: to.Name, ToValidity: s.at.UIDValidity, ToUID: s.at.UID})
		case errors.Is(s.err, mailstore.ErrThrottled):
			later = append(later, s)
		default:
			r.tried[r.origin(s.c)] = true
			class, why := refusal(s.err)
			records = append(records, r.notBack(s.c, class, why))
		}
	}
	if err := r.journal.write(records...); err != nil {
		return nil, err
	}
	return later, r.confirm(ctx, to, taken)
}

// refusal says why a message wasn't taken.
func refusal(err error) (Class, string) {
	switch {
	case err == nil:
		return ClassUnread, "the platform lists it and doesn't give it"
	case errors.Is(err, mailstore.ErrTooLarge):
		return ClassTooLarge, err.Error()
	case errors.Is(err, mailstore.ErrNoSpace):
		return ClassNoSpace, err.Error()
	case errors.Is(err, mailstore.ErrNoFolder):
		return ClassFolder, err.Error()
	default:
		return ClassRefused, err.Error()
	}
}

// transfer passes the messages from one platform to the other, as they come.
func (r *run) transfer(ctx context.Context, to *folder, uids []uint32, batch []*sending) error {
	byUID := make(map[uint32]*sending, len(batch))
	for _, s := range batch {
		byUID[s.c.uid] = s
	}
	put := r.to.AppendMany(ctx, to.Name)
	lost := map[string]int{}
	err := r.from.Bodies(ctx, uids, func(uid uint32, size int64, body io.Reader) error {
		s := byUID[uid]
		if s == nil {
			return nil
		}
		if r.e.limiter != nil {
			if err := r.e.limiter.Wait(ctx); err != nil {
				return err
			}
		}
		s.flags = r.flagsFor(s.c, to, lost)
		m := mailstore.Append{Flags: s.flags, Internal: time.Unix(s.c.arrived, 0).In(time.FixedZone("", int(s.c.zone))), Size: size, Body: body}
		return put.Add(m, func(at mailstore.Appended, err error) {
			s.at, s.err, s.taken = at, err, err == nil
			if err == nil {
				r.bytes += size
			}
		})
	})
	if cerr := put.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if len(lost) > 0 {
		return r.journal.write(record{Kind: kindFlags, Flags: lost})
	}
	return nil
}

// receiptSent says that a read receipt was sent, so that no other program sends one (RFC 3503).
const receiptSent = "$MDNSent"

// flagsFor returns the flags that a message gets on To, and counts those that To doesn't
// keep.
func (r *run) flagsFor(c *candidate, to *folder, lost map[string]int) []string {
	var flags []string
	have := r.flags[c.flags]
	for _, f := range have {
		// System flags may always be told; whether they were kept is seen when the message is found.
		if to.Keeps(f) || f[0] == '\\' {
			flags = append(flags, f)
		} else {
			lost[f]++
		}
	}
	if c.receipt && hasFlag(have, `\Seen`) && !hasFlag(have, receiptSent) && to.Keeps(receiptSent) {
		flags = append(flags, receiptSent)
	}
	return flags
}

func hasFlag(flags []string, flag string) bool {
	return slices.ContainsFunc(flags, func(f string) bool { return strings.EqualFold(f, flag) })
}

// confirm looks for the messages that To took. Only what is found counts as back.
func (r *run) confirm(ctx context.Context, to *folder, taken []*sending) error {
	if len(taken) == 0 {
		return nil
	}
	to.claimed = make(map[uint32]bool)
	deadline := time.NewTimer(r.e.o.Settle)
	defer deadline.Stop()
	left := taken
	for last := false; ; { // a look may take long: the last one begins when the time is over
		var err error
		if left, err = r.findAgain(ctx, to, left); err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		if last {
			break
		}
		pause := time.NewTimer(r.e.o.Settle / 4)
		select {
		case <-pause.C:
		case <-deadline.C:
			last = true
		case <-ctx.Done():
			pause.Stop()
			return context.Cause(ctx)
		}
		pause.Stop()
	}
	var records []record
	for _, s := range left {
		r.tried[r.origin(s.c)] = true
		records = append(records, r.notBack(s.c, ClassDropped, fmt.Sprintf("%s answered OK and doesn't have it in %q: it may drop what looks like a duplicate to it", r.job.Direction.To, to.Name)))
	}
	return r.journal.write(records...)
}

// findAgain looks for messages in the folder once, notes those that are there, and returns the rest.
func (r *run) findAgain(ctx context.Context, to *folder, taken []*sending) ([]*sending, error) {
	state, err := r.to.Select(ctx, to.Name, true)
	if err != nil {
		return nil, err
	}
	byUID := make(map[uint32]*sending)
	first := to.next
	for _, s := range taken {
		if s.at.UID != 0 && s.at.UIDValidity == state.UIDValidity {
			byUID[s.at.UID] = s
			if len(byUID) == len(taken) { // all are known: what came before needn't be looked at
				first = slices.MinFunc(taken, func(a, b *sending) int { return int(int64(a.at.UID) - int64(b.at.UID)) }).at.UID
			}
		}
	}
	var records []record
	var bare []mailstore.Message // without a key, and without a UID that we know
	lost := map[string]int{}
	found := func(s *sending, m *mailstore.Message) {
		s.found, to.claimed[m.UID] = true, true
		for _, f := range s.flags {
			if !hasFlag(m.Flags, f) && f != receiptSent {
				lost[f]++
			}
		}
		records = append(records, record{Kind: kindBack, origin: r.origin(s.c), Key: s.c.key, Ours: s.c.ours,
			To: to.Name, ToValidity: state.UIDValidity, ToUID: m.UID, Rewritten: m.Size != s.c.size})
	}
	last, role := first, r.folders[taken[0].c.folder].Role
	err = r.to.List(ctx, max(1, first), 0, func(m mailstore.Message) error {
		last = max(last, m.UID)
		if to.claimed[m.UID] {
			return nil // one message proves one
		}
		k, ours, ok := keyOf(&m, role)
		if s := byUID[m.UID]; s != nil {
			// A platform that takes our Received line off has to be believed by the UID.
			if s.c.content || ok && k == s.c.key || s.c.ours && !ours {
				found(s, &m)
			}
			return nil
		}
		if !ok {
			bare = append(bare, m)
			return nil
		}
		for _, s := range taken {
			if !s.found && s.at.UID == 0 && s.c.key == k {
				found(s, &m)
				break
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := r.findContent(ctx, taken, bare, found); err != nil {
		return nil, err
	}
	var left []*sending
	for _, s := range taken {
		if s.found {
			r.messages++
		} else {
			left = append(left, s)
		}
	}
	if len(left) == 0 {
		to.next = last + 1
	}
	if len(lost) > 0 {
		records = append(records, record{Kind: kindFlags, Flags: lost})
	}
	return left, r.journal.write(records...)
}

// findContent looks for messages by their content, where neither key nor UID tells.
func (r *run) findContent(ctx context.Context, taken []*sending, bare []mailstore.Message, found func(*sending, *mailstore.Message)) error {
	wanted := slices.ContainsFunc(taken, func(s *sending) bool { return !s.found && s.at.UID == 0 && s.c.content })
	if !wanted || len(bare) == 0 {
		return nil
	}
	uids := make([]uint32, len(bare))
	for i := range bare {
		uids[i] = bare[i].UID
	}
	return digest(ctx, r.to, uids, func(uid uint32, k msgkey.Key) {
		i := slices.Index(uids, uid)
		for _, s := range taken {
			if !s.found && s.at.UID == 0 && s.c.key == k {
				found(s, &bare[i])
				return
			}
		}
	})
}
