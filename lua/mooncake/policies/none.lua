-- none.lua - admission: everything is let in.

return {}
