package tokenizer

// trie is a byte trie. The zero value is empty.
type trie struct{ nodes []trieNode }

func (t *trie) insert(key string, value int32) {
	if t.nodes == nil {
		t.nodes = []trieNode{{value: -1}}
	}
	at := int32(0)
	for i := range len(key) {
		next := t.step(at, key[i])
		if next == 0 {
			next = int32(len(t.nodes))
			t.nodes = append(t.nodes, trieNode{b: key[i], value: -1, sibling: t.nodes[at].child})
			t.nodes[at].child = next
		}
		at = next
	}
	t.nodes[at].value = value
}

// step gives the child of node at for byte b, 0 if there is none.
func (t *trie) step(at int32, b byte) int32 {
	if t.nodes == nil {
		return 0
	}
	for n := t.nodes[at].child; n != 0; n = t.nodes[n].sibling {
		if t.nodes[n].b == b {
			return n
		}
	}
	return 0
}

// trieNode is a node of a byte trie, children as a sorted list of siblings.
type trieNode struct {
	b              byte
	value          int32 // index into list, -1 if no token ends here
	child, sibling int32 // 0: none
}
