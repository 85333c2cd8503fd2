package routing

import (
	"slices"
	"strings"
)

// Emergencies are those in which one person acted alone and that a second one has not confirmed
// yet: ids in order, with commas between. Each is confirmed by itself. The zero value: none.
// Two are the same set if they are equal.
type Emergencies string

// All returns their ids, in order.
func (e Emergencies) All() []OperationID {
	if e == "" {
		return nil
	}
	var ids []OperationID
	for id := range strings.SplitSeq(string(e), ",") {
		ids = append(ids, OperationID(id))
	}
	return ids
}

// Has reports whether an emergency is among them.
func (e Emergencies) Has(id OperationID) bool { return slices.Contains(e.All(), id) }

// With returns them with another one; the empty id changes nothing. An id has no comma.
func (e Emergencies) With(id OperationID) Emergencies {
	if id == "" || e.Has(id) {
		return e
	}
	return joined(append(e.All(), id))
}

// Without returns them without one.
func (e Emergencies) Without(id OperationID) Emergencies {
	return joined(slices.DeleteFunc(e.All(), func(other OperationID) bool { return other == id }))
}

func joined(ids []OperationID) Emergencies {
	slices.Sort(ids)
	words := make([]string, len(ids))
	for i, id := range ids {
		words[i] = string(id)
	}
	return Emergencies(strings.Join(words, ","))
}
