package redismodel

import (
	"maps"
	"slices"
	"time"
)

// value is what a key holds: exactly one of its fields is set.
type value struct {
	text    *string
	list    *[]string
	hash    *hash
	stream  *stream
	expires time.Time // by the server's clock; zero: never
}

func (v *value) kind() string {
	switch {
	case v == nil:
		return "none"
	case v.hash != nil:
		return "hash"
	case v.stream != nil:
		return "stream"
	case v.list != nil:
		return "list"
	default:
		return "string"
	}
}

func (v *value) clone() *value {
	c := &value{expires: v.expires}
	switch {
	case v.hash != nil:
		c.hash = &hash{fields: maps.Clone(v.hash.fields), order: slices.Clone(v.hash.order)}
	case v.stream != nil:
		c.stream = &stream{entries: slices.Clone(v.stream.entries), last: v.stream.last, added: v.stream.added, deleted: v.stream.deleted}
	case v.list != nil:
		list := slices.Clone(*v.list)
		c.list = &list
	default:
		text := *v.text
		c.text = &text
	}
	return c
}

// hash keeps the order in which its fields were added: Redis promises none, but the same
// run must have the same one.
type hash struct {
	fields map[string]string
	order  []string
}

func (h *hash) set(field, text string) (added bool) {
	if _, ok := h.fields[field]; !ok {
		h.order = append(h.order, field)
		added = true
	}
	h.fields[field] = text
	return added
}

func (h *hash) remove(field string) bool {
	if _, ok := h.fields[field]; !ok {
		return false
	}
	delete(h.fields, field)
	h.order = slices.Delete(h.order, slices.Index(h.order, field), slices.Index(h.order, field)+1)
	return true
}

// data is all that a server holds.
type data map[string]*value

func (d data) clone() data {
	c := make(data, len(d))
	for k, v := range d {
		c[k] = v.clone()
	}
	return c
}

// get returns the value of a key, nil if there is none or its time is over.
func (s *Server) get(key string) *value {
	v := s.data[key]
	if v != nil && !v.expires.IsZero() && !s.now().Before(v.expires) {
		delete(s.data, key)
		return nil
	}
	return v
}

const wrongType = failure("WRONGTYPE Operation against a key holding the wrong kind of value")

// hashAt returns the hash at a key; nil if there is none.
func (s *Server) hashAt(key string) (*hash, error) {
	v := s.get(key)
	if v == nil {
		return nil, nil
	}
	if v.hash == nil {
		return nil, wrongType
	}
	return v.hash, nil
}

// makeHash returns the hash at a key, a new one if there is none.
func (s *Server) makeHash(key string) (*hash, error) {
	h, err := s.hashAt(key)
	if h == nil && err == nil {
		h = &hash{fields: map[string]string{}}
		s.data[key] = &value{hash: h}
	}
	return h, err
}

func (s *Server) textAt(key string) (text string, there bool, err error) {
	v := s.get(key)
	if v == nil {
		return "", false, nil
	}
	if v.text == nil {
		return "", false, wrongType
	}
	return *v.text, true, nil
}

func (s *Server) streamAt(key string) (*stream, error) {
	v := s.get(key)
	if v == nil {
		return nil, nil
	}
	if v.stream == nil {
		return nil, wrongType
	}
	return v.stream, nil
}
