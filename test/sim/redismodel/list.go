package redismodel

import (
	"slices"
	"strconv"
)

// listAt returns the list at a key; nil if there is none.
func (s *Server) listAt(key string) (*[]string, error) {
	v := s.get(key)
	if v == nil {
		return nil, nil
	}
	if v.list == nil {
		return nil, wrongType
	}
	return v.list, nil
}

func cmdRPush(c *call) any {
	return c.push(func(l, items []string) []string { return append(l, items...) })
}

func cmdLPush(c *call) any {
	return c.push(func(l, items []string) []string {
		items = slices.Clone(items)
		slices.Reverse(items)
		return append(items, l...)
	})
}

func (c *call) push(join func(l, items []string) []string) any {
	l, err := c.listAt(c.args[1])
	if err != nil {
		return err
	}
	if l == nil {
		l = new([]string)
		c.data[c.args[1]] = &value{list: l}
	}
	*l = join(*l, c.args[2:])
	c.wrote(c.args...)
	return int64(len(*l))
}

func cmdLPop(c *call) any { return c.pop(0) }

func cmdRPop(c *call) any { return c.pop(-1) }

func (c *call) pop(at int) any {
	l, err := c.listAt(c.args[1])
	if l == nil || err != nil {
		return or(err, nil)
	}
	if at < 0 {
		at = len(*l) - 1
	}
	item := (*l)[at]
	c.keep(l, slices.Delete(slices.Clone(*l), at, at+1))
	return item
}

// keep stores what is left of a list.
func (c *call) keep(l *[]string, left []string) {
	if *l = left; len(left) == 0 {
		delete(c.data, c.args[1])
	}
	c.wrote(c.args...)
}

func cmdLLen(c *call) any {
	l, err := c.listAt(c.args[1])
	if l == nil || err != nil {
		return or(err, int64(0))
	}
	return int64(len(*l))
}

// bounds reads the begin and end of a part of a list of n items.
func bounds(from, to string, n int) (int, int, error) {
	i, err := strconv.Atoi(from)
	j, err2 := strconv.Atoi(to)
	if err != nil || err2 != nil {
		return 0, 0, notInteger
	}
	if i < 0 {
		i = max(0, n+i)
	}
	if j < 0 {
		j += n
	}
	i, j = min(i, n), min(j, n-1)
	return i, max(i, j+1), nil
}

func cmdLRange(c *call) any {
	l, err := c.listAt(c.args[1])
	if err != nil {
		return err
	}
	if l == nil {
		l = new([]string)
	}
	from, to, err := bounds(c.args[2], c.args[3], len(*l))
	if err != nil {
		return err
	}
	part := []any{}
	for _, item := range (*l)[from:to] {
		part = append(part, item)
	}
	return part
}

func cmdLTrim(c *call) any {
	l, err := c.listAt(c.args[1])
	if l == nil || err != nil {
		return or(err, ok)
	}
	from, to, err := bounds(c.args[2], c.args[3], len(*l))
	if err != nil {
		return err
	}
	c.keep(l, slices.Clone((*l)[from:to]))
	return ok
}

func cmdLIndex(c *call) any {
	l, err := c.listAt(c.args[1])
	if err != nil {
		return err
	}
	i, err := strconv.Atoi(c.args[2])
	if err != nil {
		return notInteger
	}
	if l == nil {
		return nil
	}
	if i < 0 {
		i += len(*l)
	}
	if i < 0 || i >= len(*l) {
		return nil
	}
	return (*l)[i]
}
