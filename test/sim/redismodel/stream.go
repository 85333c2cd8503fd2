package redismodel

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
)

// streamID is the id of a stream's entry.
type streamID struct{ ms, seq uint64 }

func (id streamID) String() string { return fmt.Sprintf("%d-%d", id.ms, id.seq) }

func (id streamID) less(other streamID) bool {
	return id.ms < other.ms || id.ms == other.ms && id.seq < other.seq
}

type entry struct {
	id     streamID
	fields []string
}

type stream struct {
	entries []entry
	last    streamID
	added   int
	deleted streamID // highest id that was removed
}

// nodeEntries is how many entries Redis has in one node of a stream: "~" trims whole ones.
const nodeEntries = 100

// trim removes the oldest entries beyond max; about: whole nodes only.
func (st *stream) trim(max int, about bool) int {
	n := len(st.entries) - max
	if about {
		n -= n % nodeEntries
	}
	if n <= 0 {
		return 0
	}
	st.deleted = st.entries[n-1].id
	st.entries = st.entries[n:]
	return n
}

// after returns the entries from the first that is not before id on.
func (st *stream) from(id streamID) []entry {
	i := sort.Search(len(st.entries), func(i int) bool { return !st.entries[i].id.less(id) })
	return st.entries[i:]
}

const badStreamID = failure("ERR Invalid stream ID specified as stream command argument")

// parseStreamID reads an id; a missing sequence number is seq.
func parseStreamID(text string, seq uint64) (streamID, error) {
	ms, rest, both := strings.Cut(text, "-")
	id := streamID{seq: seq}
	var err error
	if id.ms, err = strconv.ParseUint(ms, 10, 64); err != nil {
		return id, badStreamID
	}
	if both {
		if id.seq, err = strconv.ParseUint(rest, 10, 64); err != nil {
			return id, badStreamID
		}
	}
	return id, nil
}

// parseBound reads the begin or end of a range.
func parseBound(text string, end bool) (streamID, error) {
	seq := uint64(0)
	if end {
		seq = 1<<64 - 1
	}
	switch {
	case text == "-":
		return streamID{}, nil
	case text == "+":
		return streamID{ms: 1<<64 - 1, seq: 1<<64 - 1}, nil
	case strings.HasPrefix(text, "("):
		id, err := parseStreamID(text[1:], seq)
		if err != nil {
			return id, err
		}
		if end {
			if id.seq--; id.seq == 1<<64-1 {
				id.ms--
			}
			return id, nil
		}
		return id.next(), nil
	}
	return parseStreamID(text, seq)
}

func (id streamID) next() streamID {
	if id.seq++; id.seq == 0 {
		id.ms++
	}
	return id
}

func entryReply(e entry) any {
	fields := make([]any, len(e.fields))
	for i, f := range e.fields {
		fields[i] = f
	}
	return []any{e.id.String(), fields}
}

func entriesReply(list []entry) []any {
	r := make([]any, len(list))
	for i, e := range list {
		r[i] = entryReply(e)
	}
	return r
}

func cmdXAdd(c *call) any {
	key, args := c.args[1], c.args[2:]
	max, about, make := -1, false, true
	for len(args) > 0 {
		switch strings.ToUpper(args[0]) {
		case "NOMKSTREAM":
			make, args = false, args[1:]
			continue
		case "MAXLEN":
			args = args[1:]
			if len(args) > 0 && (args[0] == "~" || args[0] == "=") {
				about, args = args[0] == "~", args[1:]
			}
			if len(args) == 0 {
				return syntaxError
			}
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 0 {
				return notInteger
			}
			max, args = n, args[1:]
			continue
		}
		break
	}
	if len(args) < 3 || len(args)%2 == 0 {
		return c.arity()
	}
	// Redis looks at an id by itself before it looks at the key.
	var given streamID
	ms, partial := strings.CutSuffix(args[0], "-*")
	if args[0] != "*" {
		var err error
		if given, err = parseStreamID(ms, 0); err != nil {
			return err
		}
		if !partial && given == (streamID{}) {
			return failure("ERR The ID specified in XADD must be greater than 0-0")
		}
	}
	st, err := c.streamAt(key)
	if err != nil {
		return err
	}
	var last streamID
	if st != nil {
		last = st.last
	}
	id := given
	switch {
	case args[0] == "*":
		id = streamID{ms: uint64(c.now().UnixMilli())}
		if !last.less(id) {
			id = last.next()
		}
	case partial && id.ms == last.ms:
		id = last.next()
	}
	switch {
	case id == streamID{}:
		return failure("ERR The ID specified in XADD must be greater than 0-0")
	case !last.less(id):
		return failure("ERR The ID specified in XADD is equal or smaller than the target stream top item")
	case st == nil && !make:
		return nil
	}
	if st == nil {
		st = new(stream)
		c.data[key] = &value{stream: st}
	}
	st.entries = append(st.entries, entry{id, args[1:]})
	st.last = id
	st.added++
	if max >= 0 {
		st.trim(max, about)
	}
	c.wrote("XADD", key, "MAXLEN", "=", strconv.Itoa(len(st.entries)), id.String())
	e := &c.effects[len(c.effects)-1]
	*e = append(*e, args[1:]...)
	c.touched = append(c.touched, key)
	return id.String()
}

func cmdXTrim(c *call) any {
	if strings.ToUpper(c.args[2]) != "MAXLEN" {
		return syntaxError
	}
	st, err := c.streamAt(c.args[1])
	if st == nil || err != nil {
		return or(err, int64(0))
	}
	n, err := strconv.Atoi(c.args[len(c.args)-1])
	if err != nil {
		return notInteger
	}
	removed := st.trim(n, c.args[3] == "~")
	c.wrote("XTRIM", c.args[1], "MAXLEN", "=", strconv.Itoa(len(st.entries)))
	return int64(removed)
}

func cmdXLen(c *call) any {
	st, err := c.streamAt(c.args[1])
	if st == nil || err != nil {
		return or(err, int64(0))
	}
	return int64(len(st.entries))
}

func cmdXRange(c *call) any    { return c.xrange(c.args[2], c.args[3], false) }
func cmdXRevRange(c *call) any { return c.xrange(c.args[3], c.args[2], true) }

func (c *call) xrange(begin, end string, backward bool) any {
	from, err := parseBound(begin, false)
	if err != nil {
		return err
	}
	to, err := parseBound(end, true)
	if err != nil {
		return err
	}
	count := -1
	if len(c.args) == 6 && strings.ToUpper(c.args[4]) == "COUNT" {
		if count, err = strconv.Atoi(c.args[5]); err != nil {
			return notInteger
		}
	} else if len(c.args) != 4 {
		return syntaxError
	}
	st, err := c.streamAt(c.args[1])
	if st == nil || err != nil {
		return or(err, []any{})
	}
	var list []entry
	for _, e := range st.from(from) {
		if to.less(e.id) {
			break
		}
		list = append(list, e)
	}
	if backward {
		for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
			list[i], list[j] = list[j], list[i]
		}
	}
	if count >= 0 && len(list) > count {
		list = list[:count]
	}
	return entriesReply(list)
}

// waitingRead is an XREAD.
type waitingRead struct {
	keys  []string
	after []streamID
	count int
	block int64 // ms; negative: it doesn't wait
}

func cmdXRead(c *call) any {
	r := waitingRead{count: -1, block: -1}
	args := c.args[1:]
	for len(args) > 1 {
		word := strings.ToUpper(args[0])
		if word == "STREAMS" {
			break
		}
		n, err := strconv.ParseInt(args[1], 10, 64)
		if err != nil || n < 0 {
			return notInteger
		}
		switch word {
		case "COUNT":
			r.count = int(n)
		case "BLOCK":
			r.block = n
		default:
			return syntaxError
		}
		args = args[2:]
	}
	if len(args) < 3 || strings.ToUpper(args[0]) != "STREAMS" || len(args)%2 == 0 {
		return syntaxError
	}
	half := (len(args) - 1) / 2
	r.keys = args[1 : 1+half]
	for i, text := range args[1+half:] {
		var id streamID
		if text == "$" {
			if st, err := c.streamAt(r.keys[i]); err != nil {
				return err
			} else if st != nil {
				id = st.last
			}
		} else {
			var err error
			if id, err = parseStreamID(text, 0); err != nil {
				return err
			}
		}
		r.after = append(r.after, id)
	}
	answer := c.read(&r)
	if answer == (nullArray{}) && r.block >= 0 && c.session != nil && !c.nested {
		return &r // the session waits
	}
	return answer
}

// read answers an XREAD, nullArray if there is nothing.
func (s *Server) read(r *waitingRead) any {
	var found pairs
	for i, key := range r.keys {
		st, err := s.streamAt(key)
		if err != nil {
			return err
		}
		if st == nil {
			continue
		}
		list := st.from(r.after[i].next())
		if r.count > 0 && len(list) > r.count {
			list = list[:r.count]
		}
		if len(list) > 0 {
			found = append(found, key, entriesReply(list))
		}
	}
	if found == nil {
		return nullArray{}
	}
	return readReply(found)
}

func cmdXInfo(c *call) any {
	if strings.ToUpper(c.args[1]) != "STREAM" || len(c.args) != 3 {
		return syntaxError
	}
	st, err := c.streamAt(c.args[2])
	if err != nil {
		return err
	}
	if st == nil {
		return failure("ERR no such key")
	}
	var first, last any
	if n := len(st.entries); n > 0 {
		first, last = entryReply(st.entries[0]), entryReply(st.entries[n-1])
	}
	recorded := streamID{}
	if len(st.entries) > 0 {
		recorded = st.entries[0].id
	}
	return pairs{"length", int64(len(st.entries)), "radix-tree-keys", int64(1), "radix-tree-nodes", int64(2),
		"last-generated-id", st.last.String(), "max-deleted-entry-id", streamID{}.String(), "entries-added", int64(st.added),
		"recorded-first-entry-id", recorded.String(), "groups", int64(0), "first-entry", first, "last-entry", last}
}
