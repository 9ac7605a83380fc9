package serve

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// cursor walks through a document that is known to be valid JSON, member by member, as encoding/json does not tell what it
// overlooks. It is at the first byte of a value when a method is called, and behind the value afterwards.
type cursor struct {
	b []byte
	i int
}

// next passes over white space and returns the byte that follows.
func (c *cursor) next() byte {
	for c.b[c.i] == ' ' || c.b[c.i] == '\t' || c.b[c.i] == '\r' || c.b[c.i] == '\n' {
		c.i++
	}
	return c.b[c.i]
}

// object reads an object, and calls member at the value of each member, with "" for those that are not in decides. Of the
// others none may come twice, or in another spelling. What is no object is passed over.
func (c *cursor) object(decides []string, member func(key string) error) error {
	if c.b[c.i] != '{' {
		c.skip()
		return nil
	}
	seen := 0 // bit by bit, of decides
	for c.i++; c.next() != '}'; {
		if c.b[c.i] == ',' {
			c.i++
			c.next()
		}
		key, err := c.key()
		if err != nil {
			return err
		}
		name := ""
		for i, want := range decides {
			switch {
			case !bytes.EqualFold(key, []byte(want)):
			case string(key) != want:
				return fmt.Errorf("it has %.32q for %q", key, want)
			case seen&(1<<i) != 0:
				return fmt.Errorf("it has %q twice", key)
			default:
				seen |= 1 << i
				name = want
			}
		}
		c.next()
		c.i++ // the colon
		c.next()
		if err := member(name); err != nil {
			return err
		}
	}
	c.i++
	return nil
}

// array reads an array, and calls element at each of its elements. What is no array is passed over.
func (c *cursor) array(element func() error) error {
	if c.b[c.i] != '[' {
		c.skip()
		return nil
	}
	for c.i++; c.next() != ']'; {
		if c.b[c.i] == ',' {
			c.i++
			c.next()
		}
		if err := element(); err != nil {
			return err
		}
	}
	c.i++
	return nil
}

// descriptor reads a descriptor.
func (c *cursor) descriptor() error {
	return c.object(decidesDescriptor, func(string) error {
		c.skip()
		return nil
	})
}

// key reads the name of a member.
func (c *cursor) key() ([]byte, error) {
	raw := c.skip()
	if !bytes.Contains(raw, []byte{'\\'}) {
		return raw[1 : len(raw)-1], nil
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return []byte(s), err
}

// skip passes over a value of any kind, and returns its bytes.
func (c *cursor) skip() []byte {
	start, depth := c.i, 0
	for c.i < len(c.b) {
		switch c.b[c.i] {
		case '"':
			c.quoted()
		case '{', '[':
			depth++
			c.i++
		case '}', ']':
			if depth--; depth < 0 { // of what the value is in
				return c.b[start:c.i]
			}
			c.i++
		case ',', ' ', '\t', '\r', '\n', ':':
			if depth == 0 {
				return c.b[start:c.i]
			}
			c.i++
			continue
		default: // of a number or a word
			c.i++
			continue
		}
		if depth == 0 {
			return c.b[start:c.i]
		}
	}
	return c.b[start:]
}

// quoted passes over a string.
func (c *cursor) quoted() {
	for c.i++; c.b[c.i] != '"'; c.i++ {
		if c.b[c.i] == '\\' {
			c.i++
		}
	}
	c.i++
}
