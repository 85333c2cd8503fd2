package splice

import "time"

// unsettled reports whether settle would do more than to set the deadline.
func (j *Joint) unsettled() bool {
	return j.isCut() || j.stage != joined || j.platform.closed || j.client.closed ||
		j.up.shut && j.down.shut || j.platform.failed || j.client.failed
}

// settle ends what is to be ended, after bytes were moved.
func (j *Joint) settle(n news) {
	if n&closing != 0 {
		j.shutAll()
		return
	}
	if n&silence != 0 {
		j.listen()
	}
	if n&expired != 0 {
		j.limit() // a byte may have moved since
	}
	if n&expired != 0 && j.late(time.Since(j.e.born)) {
		if j.by != ByUnknown || j.isCut() || j.blocked() {
			j.because(ByLimit, nil)
			j.shutAll()
			return
		}
		j.because(ByLimit, nil) // idle: both may end in order
		j.setCut()
	}
	switch {
	case j.isCut():
		if !j.platform.closed {
			j.torn()
			j.closePlatform(true)
		}
	case j.up.shut && j.down.shut, j.platform.failed && j.down.shut, j.client.failed && j.up.shut:
		j.finish()
	}
	if j.platform.closed && !j.client.closed {
		j.part()
	}
	if j.platform.closed && j.client.closed {
		j.done()
		return
	}
	j.limit()
}

// torn drops what was under way. Half a TLS record can't be followed by anything.
func (j *Joint) torn() {
	j.e.pool.put(&j.up.buf)
	j.e.pool.put(&j.down.buf)
	if j.client.holds() || j.down.said {
		j.down.dead = true
	}
	for _, w := range []*wire{j.client.wire, j.platform.wire} {
		if w != nil {
			w.drop()
		}
	}
}

// finish closes what can be closed when both directions have ended, or one connection is
// broken and the other side has its end.
func (j *Joint) finish() {
	both := j.up.shut && j.down.shut
	if both || j.client.failed {
		j.closeClient()
	}
	switch {
	case j.platform.failed:
		j.closePlatform(true)
	case !both:
		// the platform's own end is awaited
	case sent(j.platform.fd):
		j.closePlatform(false)
	default:
		// What the kernel still has would reach the platform after PlatformGone.
		j.after(20 * time.Millisecond)
	}
}

// part leads the client's side to its end, after the platform was cut.
func (j *Joint) part() {
	if j.client.closed {
		return
	}
	if j.stage == joined {
		j.stage = dropping
		if j.down.shut || j.client.failed {
			j.stage = leaving // it was told the end before
		}
	}
	ended := j.client.failed || !j.discard()
	if j.client.failed {
		j.closeClient()
		return
	}
	if j.stage == dropping {
		j.mu.Lock()
		p := j.parting
		j.mu.Unlock()
		switch wait := time.Until(p.at); {
		case !p.asked && !ended && j.by != ByLimit:
			return
		case p.asked && wait > 0 && !ended:
			j.after(wait)
			return
		}
		j.tell(p.words)
	}
	if j.stage == telling {
		if !j.told() {
			return
		}
		j.stage = leaving
		if err := j.client.fd.shut(); err != nil {
			ended = true
		}
		j.touch()
	}
	if j.stage == leaving && ended {
		j.closeClient()
	}
}

// tell asks for the last words.
func (j *Joint) tell(words func() []byte) {
	j.stage = telling
	j.touch()
	if words == nil || j.down.dead {
		return
	}
	p := words()
	if len(p) == 0 {
		return
	}
	j.down.buf = rest(p).buf
	j.mu.Lock()
	j.parting.said = true
	j.mu.Unlock()
}

// told sends the last words and, with TLS, the end, and reports whether all is sent.
func (j *Joint) told() bool {
	s := &j.client
	for !s.failed && !j.down.dead {
		var err error
		switch {
		case j.down.buf != nil || s.holds():
			if !s.open {
				return false
			}
			if j.down.buf == nil {
				err = s.flush()
			} else if _, err = s.write(j.down.buf); j.down.buf.from == j.down.buf.to {
				j.down.buf = nil
			}
		case s.tls != nil && !j.down.said:
			j.down.said = true
			err = s.tls.CloseWrite()
		default:
			return true
		}
		if err != nil {
			s.failed = true
		}
	}
	return true
}

// discard drops what the client sends, and is false when it has ended.
func (j *Joint) discard() (more bool) {
	if j.up.eof {
		return false
	}
	if !j.client.ready {
		return true
	}
	b := j.e.pool.get(small)
	defer j.e.pool.put(&b)
	if !j.client.discard(b) {
		j.up.eof = true
		return false
	}
	if j.client.ready {
		j.post(due)
	}
	return true
}

// listen cuts when both directions are silent.
func (j *Joint) listen() {
	if j.isCut() || j.platform.closed {
		return
	}
	now := time.Now()
	j.mu.Lock()
	q := j.quiet
	j.mu.Unlock()
	left := min(q.until.Sub(now), q.silence-now.Sub(j.Stats().Last))
	if j.blocked() {
		left = min(q.until.Sub(now), max(q.silence, 10*time.Millisecond))
	}
	if left <= 0 {
		j.CutPlatform()
		j.because(ByOwner, nil)
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if t := j.quiet.timer; t != nil {
		t.Reset(left)
	} else {
		j.quiet.timer = time.AfterFunc(left, func() { j.post(silence) })
	}
}

// after has run called again.
func (j *Joint) after(d time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if t := j.parting.timer; t != nil {
		t.Reset(d)
	} else {
		j.parting.timer = time.AfterFunc(d, func() { j.post(due) })
	}
}

// limit sets when the engine looks at the pair again if nothing happens.
func (j *Joint) limit() {
	var d time.Duration
	switch {
	case j.stage == dropping:
		j.mu.Lock()
		asked := j.parting.asked
		j.mu.Unlock()
		if !asked {
			d = j.e.o.HalfOpen
		}
	case j.stage != joined, j.platform.closed, j.client.closed, j.platform.failed, j.client.failed, j.up.shut && j.down.shut:
		d = j.e.o.Linger
	case j.suspended:
	case j.blocked():
		d = j.e.o.Write
	case j.up.shut, j.down.shut:
		d = j.e.o.HalfOpen
	default:
		d = j.e.o.Idle
	}
	if d == 0 {
		j.deadline.Store(0)
		return
	}
	j.deadline.Store(j.last.Load() + int64(d))
}

// blocked reports whether bytes wait for a peer that takes none.
func (j *Joint) blocked() bool {
	return j.up.buf != nil || j.down.buf != nil || j.client.holds() || j.platform.holds()
}

// late reports whether the deadline is over, so long after the engine's start.
func (j *Joint) late(now time.Duration) bool {
	d := j.deadline.Load()
	return d != 0 && int64(now) >= d
}

// shutAll ends both sides without more ado.
func (j *Joint) shutAll() {
	j.setCut()
	j.torn()
	j.closePlatform(true)
	j.closeClient()
	j.done()
}

func (j *Joint) closePlatform(reset bool) {
	s := &j.platform
	if s.closed {
		return
	}
	j.close(s, &j.up, reset)
	j.owner.PlatformGone()
}

func (j *Joint) closeClient() {
	if !j.client.closed {
		j.close(&j.client, &j.down, false)
	}
}

func (j *Joint) close(s *side, f *flow, reset bool) {
	s.closed = true
	if reset {
		_ = s.tcp.SetLinger(0) // it is closed in any case
	}
	_ = s.tcp.Close()
	j.e.pool.put(&f.buf)
	if s.wire != nil {
		s.wire.drop()
	}
}

// done tells the owner and leaves the engine.
func (j *Joint) done() {
	j.mu.Lock()
	over := j.over
	j.over = true
	for _, t := range []*time.Timer{j.parting.timer, j.quiet.timer} {
		if t != nil {
			t.Stop()
		}
	}
	said := j.parting.said && !j.client.failed && j.stage == leaving
	j.mu.Unlock()
	if over {
		return
	}
	j.owner.Done(Ended{By: j.by, Err: j.err, Words: said, Stats: j.Stats()})
	j.e.forget(j)
}
