package redismodel

import (
	"path"
	"strconv"
	"strings"
)

func cmdHGet(c *call) any {
	h, err := c.hashAt(c.args[1])
	if h == nil || err != nil {
		return or(err, nil)
	}
	if text, there := h.fields[c.args[2]]; there {
		return text
	}
	return nil
}

func cmdHMGet(c *call) any {
	h, err := c.hashAt(c.args[1])
	if err != nil {
		return err
	}
	list := make([]any, len(c.args)-2)
	for i, field := range c.args[2:] {
		if h != nil {
			if text, there := h.fields[field]; there {
				list[i] = text
			}
		}
	}
	return list
}

func cmdHSet(c *call) any {
	if len(c.args)%2 != 0 {
		return c.arity()
	}
	h, err := c.makeHash(c.args[1])
	if err != nil {
		return err
	}
	n := int64(0)
	for i := 2; i < len(c.args); i += 2 {
		if h.set(c.args[i], c.args[i+1]) {
			n++
		}
	}
	c.wrote(c.args...)
	return n
}

func cmdHSetNX(c *call) any {
	h, err := c.makeHash(c.args[1])
	if err != nil {
		return err
	}
	if _, there := h.fields[c.args[2]]; there {
		return int64(0)
	}
	h.set(c.args[2], c.args[3])
	c.wrote("HSET", c.args[1], c.args[2], c.args[3])
	return int64(1)
}

func cmdHDel(c *call) any {
	h, err := c.hashAt(c.args[1])
	if h == nil || err != nil {
		return or(err, int64(0))
	}
	n := int64(0)
	for _, field := range c.args[2:] {
		if h.remove(field) {
			n++
		}
	}
	if len(h.order) == 0 {
		delete(c.data, c.args[1])
	}
	if n > 0 {
		c.wrote(c.args...)
	}
	return n
}

func cmdHExists(c *call) any {
	h, err := c.hashAt(c.args[1])
	if h == nil || err != nil {
		return or(err, int64(0))
	}
	if _, there := h.fields[c.args[2]]; there {
		return int64(1)
	}
	return int64(0)
}

func cmdHLen(c *call) any {
	h, err := c.hashAt(c.args[1])
	if h == nil || err != nil {
		return or(err, int64(0))
	}
	return int64(len(h.order))
}

func cmdHStrLen(c *call) any {
	h, err := c.hashAt(c.args[1])
	if h == nil || err != nil {
		return or(err, int64(0))
	}
	return int64(len(h.fields[c.args[2]]))
}

// all answers HGETALL, HKEYS and HVALS.
func (c *call) all(fields, texts bool) any {
	h, err := c.hashAt(c.args[1])
	if err != nil {
		return err
	}
	list := []any{}
	if h != nil {
		for _, field := range h.order {
			if fields {
				list = append(list, field)
			}
			if texts {
				list = append(list, h.fields[field])
			}
		}
	}
	if fields && texts {
		return pairs(list)
	}
	return list
}

// cmdHScan answers everything at once, which Redis may do as well.
func cmdHScan(c *call) any {
	h, err := c.hashAt(c.args[1])
	if err != nil {
		return err
	}
	pattern := "*"
	for i := 3; i+1 < len(c.args); i += 2 {
		if strings.ToUpper(c.args[i]) == "MATCH" {
			pattern = c.args[i+1]
		}
	}
	list := []any{}
	if h != nil {
		for _, field := range h.order {
			if match, _ := path.Match(pattern, field); match {
				list = append(list, field, h.fields[field])
			}
		}
	}
	return []any{"0", list}
}

func cmdHIncrBy(c *call) any {
	by, err := strconv.ParseInt(c.args[3], 10, 64)
	if err != nil {
		return notInteger
	}
	h, err := c.makeHash(c.args[1])
	if err != nil {
		return err
	}
	n := int64(0)
	if text, there := h.fields[c.args[2]]; there {
		if n, err = strconv.ParseInt(text, 10, 64); err != nil {
			return failure("ERR hash value is not an integer")
		}
	}
	n += by
	h.set(c.args[2], strconv.FormatInt(n, 10))
	c.wrote("HSET", c.args[1], c.args[2], strconv.FormatInt(n, 10))
	return n
}
