package kernel

func currentTiles() *tiles { return &genericTiles }
