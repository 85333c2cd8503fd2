package splice

import "time"

// flow is one direction. It belongs to whoever runs the pair.
type flow struct {
	buf   *buffer // read and not written; nil: nothing
	class int     // of the next buffer
	eof   bool    // nothing more comes
	said  bool    // TLS: close_notify is in the wire
	shut  bool    // the end was passed on, or nobody is there to take it
	dead  bool    // who it goes to takes nothing any more: what comes is dropped
}

// pause is how long a pair moves no byte before its buffers are small again: it was idle, or
// its peers are slow.
const pause = 50 * time.Millisecond

// rest makes a flow that begins with p.
func rest(p []byte) flow {
	if len(p) == 0 {
		return flow{}
	}
	return flow{buf: &buffer{p: p, to: len(p), class: sizes}}
}

// pump moves what it can from one side to the other, in so many steps at most, and says
// whether anything changed.
func (j *Joint) pump(f *flow, src, dst *side, steps int) (moved bool) {
	for range steps {
		switch {
		case j.suspended || j.isCut():
			return moved
		case f.dead && (f.buf != nil || dst.holds()):
			j.e.pool.put(&f.buf)
			if dst.wire != nil {
				dst.wire.drop()
			}
		case f.buf != nil || dst.holds():
			if !dst.open || !j.mayFlow() {
				return moved
			}
			j.write(f, dst)
		case f.shut:
			return moved
		case f.eof:
			j.passEnd(f, dst)
		case !src.ready:
			return moved
		default:
			j.read(f, src)
		}
		moved = true
	}
	return moved
}

// mayFlow asks the owner.
func (j *Joint) mayFlow() bool {
	err := j.owner.Flow()
	if err == nil {
		return true
	}
	j.refused(err)
	return false
}

func (j *Joint) read(f *flow, src *side) {
	f.buf = j.e.pool.get(f.class)
	n, err := src.read(f.buf)
	switch {
	case n == chunk[f.buf.class]:
		f.class = min(f.class+1, huge)
	case n == 0:
		j.e.pool.put(&f.buf)
	}
	// What will be dropped doesn't keep the pair alive.
	if n > 0 && !f.dead && j.touch() > pause {
		f.class = small
	}
	switch {
	case err != nil:
		j.ended(f, src, err)
	case n == 0 && src.failed:
		f.eof = true
	}
}

func (j *Joint) write(f *flow, dst *side) {
	var p []byte
	var n int
	var err error
	j.gate.Lock()
	if j.cut {
		j.gate.Unlock()
		return
	}
	if f.buf == nil {
		err = dst.flush()
	} else {
		p = f.buf.bytes()
		n, err = dst.write(f.buf)
	}
	j.gate.Unlock()
	if n > 0 {
		if j.touch() > pause {
			f.class = small
		}
		if f == &j.down {
			j.toClient.Add(int64(n))
			j.owner.ToClientSeen(p[:n])
		} else {
			j.toPlatform.Add(int64(n))
		}
	} else if f.buf == nil {
		j.touch()
	}
	if f.buf != nil && f.buf.from == f.buf.to {
		j.e.pool.put(&f.buf)
	}
	if err != nil {
		j.broken(dst, err)
	}
}

// passEnd tells the other side that nothing more comes.
func (j *Joint) passEnd(f *flow, dst *side) {
	if f.dead {
		f.shut = true
		return
	}
	if dst.tls != nil && !f.said {
		f.said = true
		if err := dst.tls.CloseWrite(); err != nil {
			j.broken(dst, err)
		}
		return // the wire has to be empty first
	}
	f.shut = true
	if err := dst.fd.shut(); err != nil {
		j.broken(dst, err)
	}
}
